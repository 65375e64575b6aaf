"""How failover connects: a small pool with time limits on everything, on Postgres or on a SQLite file.

`Storage` is the seam: any object with these two context managers will do in its place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg2
from sqlalchemy import Connection, inspect
from sqlalchemy.event import listens_for

from failover.causes import DRIVER_ERRORS, translated
from failover.engines import Pools, postgres_engine, sqlite_engine, write_lock
from failover.errors import StoreBusy, translate
from failover.session import Limits, Session, taken_apart
from failover.tables import all_tables
from failover.watchdog import Watchdog

#: A fenced transaction that stands still is freed after 2 s, so a statement that waits for it gets a little longer.
_LIMITS = Limits(statement_ms=2500, lock_ms=2500, idle_ms=2000)
#: Beyond the server's own limits: only a server that is frozen gets here.
_GUARD_S = 4.0


class Storage(Protocol):
    """A database as the stores of this package use it."""

    @property
    def is_sqlite(self) -> bool:
        """Whether its SQL is SQLite's; Postgres's otherwise."""

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """A connection on which each statement stands alone."""

    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        """One transaction, committed when the block ends well."""


class Database:
    """`Storage` for a URL: `sqlite:///<path>`, `postgres://` or `postgresql://`. Connects at first use.

    `pools`: the others of this process on the same database. `schema`: where the tables are if `url` does not say it.
    `channel`: what its one connection listens to, on Postgres.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 1,
        guard_s: float = _GUARD_S,
        pools: Pools | None = None,
        schema: str | None = None,
        channel: str | None = None,
    ) -> None:
        session = Session(taken_apart(url)[1] or schema)
        self._begin = session.begin(_LIMITS)
        self.is_sqlite = url.startswith("sqlite")
        self._listening: Any = None
        self._guard_s = guard_s
        self._write_lock: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self._file: Path | None = None
        if self.is_sqlite:
            self._file = path = Path(url.removeprefix("sqlite:///"))
            self._write_lock = write_lock(path)
            self._engine = sqlite_engine(path, pool_size=2, max_overflow=4)
        else:
            self._engine = postgres_engine(
                url, "failover", session=session, limits=_LIMITS, pools=pools or Pools(), pool_size=pool_size
            )
        self._watchdog = Watchdog()
        if channel is not None and not self.is_sqlite:
            listens_for(self._engine, "connect")(lambda connection, _record: self._listen(connection, channel))

    def line(self) -> int | None:
        """The descriptor on which word of the channel comes, which the next use of the connection takes in."""
        connection = self._listening
        return None if connection is None or connection.closed else int(connection.fileno())

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement stands alone. Raises `StoreUnavailable` or `StoreBusy`."""
        with translated(translate), self._engine.connect() as connection, self._guarded(connection):
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends well. Raises `StoreUnavailable` or `StoreBusy`."""
        with translated(translate), self._write_lock, self._engine.connect() as connection, self._guarded(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else self._begin)
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(*DRIVER_ERRORS):
                    if not connection.invalidated:
                        connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    def create_tables(self) -> None:
        """Makes failover's tables where they are missing, and a SQLite file, for a database without migrations."""
        if self._file is not None:
            self._file.touch()
        for last in (False, True):
            try:
                with self.writing() as connection:
                    all_tables().create_all(connection)
                    _complete(connection)
                return
            except StoreBusy:
                raise
            except Exception:
                # On Postgres two processes that start together may both find a table missing.
                if last:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        """Closes what is open. It may be used again."""
        self._engine.dispose()

    def _listen(self, connection: Any, channel: str) -> None:
        """Only a hint may come of it: a server or a pooler that does not take it is none the worse for it."""
        self._listening = None
        with self._watchdog.guard(connection, self._guard_s), contextlib.suppress(psycopg2.Error):
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {channel}")
            self._listening = connection

    @contextlib.contextmanager
    def _guarded(self, connection: Connection) -> Iterator[None]:
        """Ends whatever `connection` waits for when the block takes too long, even on a server that is frozen."""
        if self.is_sqlite:
            yield
            return
        with self._watchdog.guard(connection.connection.driver_connection, self._guard_s):
            yield


def _complete(connection: Connection) -> None:
    """Adds what tables lack that an older release has made."""
    for table in all_tables().sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                added = f"{column.name} {column.type.compile(connection.dialect)}"
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
