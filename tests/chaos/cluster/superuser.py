"""What an operator does to the database over a session of his own, as its superuser, while the nodes use it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.extensions import cursor

#: Longer than any fault that another one overlaps with keeps the database away.
_PATIENCE_S = 180.0
_AGAIN_S = 0.2
#: Whatever was made read-only is not for the one who mends it. A lock that does not come is asked for again: whoever
#: waits for it in a queue of locks has everybody else wait behind.
_OPTIONS = "-c default_transaction_read_only=off -c lock_timeout=2000"


class Superuser:
    """Sessions at `url`, which leads to the server that takes writes.

    `standing`: held while that changes, so that nothing is done to a server that is about to be left.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.standing = threading.RLock()

    def does(self, *statements: str) -> None:
        """Each in a transaction of its own, tried until it is done. What is done twice must come to the same."""
        end = time.monotonic() + _PATIENCE_S
        for statement in statements:
            while not self._is_done(statement):
                assert time.monotonic() < end, f"the database did not take {statement!r} in {_PATIENCE_S:g} s"
                time.sleep(_AGAIN_S)

    def asks(self, query: str, *values: Any) -> Any:
        """The first row's first column. Raises `psycopg2.Error`."""
        with self.session() as session:
            session.execute(query, values)
            row = session.fetchone()
            return None if row is None else row[0]

    @contextlib.contextmanager
    def session(self) -> Iterator[cursor]:
        """An open transaction, rolled back in the end. Raises `psycopg2.Error`."""
        connection = psycopg2.connect(self._url, connect_timeout=5, options=_OPTIONS)
        with contextlib.closing(connection), connection.cursor() as made:
            yield made

    def _is_done(self, statement: str) -> bool:
        try:
            with self.standing:
                connection = psycopg2.connect(self._url, connect_timeout=5, options=_OPTIONS)
                with contextlib.closing(connection):
                    connection.autocommit = True
                    with connection.cursor() as made:
                        made.execute(statement)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            return False
        return True
