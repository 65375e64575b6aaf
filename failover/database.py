"""How failover connects: a small pool with time limits on everything, on Postgres or on a SQLite file.

`Storage` is the seam: any object with these two context managers will do in its place.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg2
from filelock import FileLock
from filelock import Timeout as LockTimeout
from sqlalchemy import Connection, Engine, create_engine, event

from failover.errors import DRIVER_ERRORS, StoreBusy, translate
from failover.tables import all_tables

_CONNECT_TIMEOUT_S = 2
#: A fenced transaction that stands still is freed after 2 s, so a statement that waits for it gets a little longer.
_BEGIN = (
    "BEGIN; SET LOCAL statement_timeout = 2500; SET LOCAL lock_timeout = 2500; "
    "SET LOCAL idle_in_transaction_session_timeout = 2000"
)
#: Beyond the server's own limits: only a server that is frozen gets here.
_GUARD_S = 4.0
_KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5_000,
}
_LOCK_TIMEOUT_S = 5.0


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
    """`Storage` for a URL: `sqlite:///<path>`, `postgres://` or `postgresql://`. Connects at first use."""

    def __init__(self, url: str, *, pool_size: int = 1, guard_s: float = _GUARD_S) -> None:
        self.is_sqlite = url.startswith("sqlite")
        self._guard_s = guard_s
        self._lock: FileLock | None = None
        if self.is_sqlite:
            path = Path(url.removeprefix("sqlite:///"))
            # Two writing processes starve one of them on SQLite's own lock.
            self._lock = FileLock(f"{path}.lock", timeout=_LOCK_TIMEOUT_S, poll_interval=0.001)
            self._engine = _sqlite_engine(path)
        else:
            self._engine = _postgres_engine(url, pool_size)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement stands alone. Raises `StoreUnavailable` or `StoreBusy`."""
        with _translated(), self._engine.connect() as connection, self._guarded(connection):
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends well. Raises `StoreUnavailable` or `StoreBusy`."""
        with _translated(), self._write_lock(), self._engine.connect() as connection, self._guarded(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else _BEGIN)
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(*DRIVER_ERRORS):
                    connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    def create_tables(self) -> None:
        """Makes failover's tables where they are missing, for a database that nobody migrates."""
        for last in (False, True):
            try:
                with self.writing() as connection:
                    all_tables().create_all(connection)
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

    @contextlib.contextmanager
    def _write_lock(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        try:
            self._lock.acquire()
        except LockTimeout as error:
            raise StoreBusy("another process is writing") from error
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _guarded(self, connection: Connection) -> Iterator[None]:
        """Ends whatever `connection` waits for when the block takes too long, even on a server that is frozen."""
        if self.is_sqlite:
            yield
            return
        timer = threading.Timer(self._guard_s, _shut_down, (connection.connection.driver_connection,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error


def _shut_down(connection: Any) -> None:
    """Neither keepalives nor user time-outs end a wait for a frozen server whose host still acknowledges."""
    with contextlib.suppress(OSError, ValueError, psycopg2.Error):
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.close()


def _postgres_engine(url: str, pool_size: int) -> Engine:
    plain = re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", url)

    def connect() -> Any:
        return psycopg2.connect(plain, connect_timeout=_CONNECT_TIMEOUT_S, application_name="failover", **_KEEPALIVES)

    return create_engine(
        "postgresql+psycopg2://",
        creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2.0,
        # For good: switched per use it is a SET of the session, with each return to the pool.
        isolation_level="AUTOCOMMIT",
        use_native_hstore=False,
        hide_parameters=True,
    )


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", pool_size=2, max_overflow=4, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: `writing` does, with the lock held.
        connection.isolation_level = None
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
