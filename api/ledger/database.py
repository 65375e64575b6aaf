"""How this project connects to Postgres and to SQLite: one place for time-outs, pragmas and locks."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from filelock import FileLock
from filelock import Timeout as LockTimeout
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from api.ledger.errors import DRIVER_ERRORS, LedgerBusy, translate
from api.ledger.watchdog import Watchdog

_CONNECT_TIMEOUT_S = 2
#: Both are needed: a user time-out alone leaves a read hanging, keepalives alone leave a write hanging.
_TCP_USER_TIMEOUT_MS = 5_000
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2}
_SQLITE_LOCK_TIMEOUT_S = 5.0
#: For BEGIN, COMMIT and ROLLBACK: only a frozen server gets here.
_WORDS_GUARD_S = 2.5


class Database:
    """A pool of connections to one database. Connects at first use, never when it is made."""

    def __init__(self, url: str, *, pool_size: int = 2, pool_timeout: float = 2.0) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._lock: FileLock | None = None
        if self.is_sqlite:
            path = Path(url.removeprefix("sqlite:///"))
            # Two writing processes starve one of them on SQLite's own lock ("database is locked" after 5 s).
            self._lock = FileLock(f"{path}.lock", timeout=_SQLITE_LOCK_TIMEOUT_S, poll_interval=0.001)
            self.engine = _sqlite_engine(path, pool_size)
        else:
            self.engine = _postgres_engine(url, pool_size, pool_timeout)
        self._watchdog = Watchdog()
        #: When (monotonic) it last did what was asked of it, None before it ever did.
        self.answered_at: float | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement stands alone. Raises `LedgerError`, never a driver's error."""
        with _translated(), self.engine.connect() as connection:
            yield connection
        self.answered_at = time.monotonic()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends well. Raises `LedgerError`, never a driver's error."""
        with _translated(), self._write_lock(), self.engine.connect() as connection:
            self._say(connection, "BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN ISOLATION LEVEL READ COMMITTED")
            try:
                yield connection
                if _in_transaction(connection):  # the block may have ended it in a message of its own
                    self._say(connection, "COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
        self.answered_at = time.monotonic()

    @contextlib.contextmanager
    def guarded(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Ends whatever `connection` is waiting for after `seconds`, even on a server that is frozen."""
        if self.is_sqlite:
            yield
            return
        with self._watchdog.guard(connection.connection.driver_connection, seconds):
            yield

    @contextlib.contextmanager
    def driver(self) -> Iterator[Any]:
        """The driver's own connection, where SQLAlchemy's costs more than the statement. Raises `LedgerError`.

        One that breaks is dropped, and every idle one with it: what ended it (a restart, a failover) ended those too.
        """
        with _translated():
            pooled = self.engine.raw_connection()
            connection: Any = pooled.driver_connection
            try:
                yield connection
            except BaseException:
                if connection.closed:
                    pooled.invalidate()
                    self.engine.dispose()
                raise
            finally:
                pooled.close()
        self.answered_at = time.monotonic()

    def watched(self, connection: Any, seconds: float) -> contextlib.AbstractContextManager[None]:
        """`guarded` for the driver's own connection."""
        return self._watchdog.guard(connection, seconds)

    def close(self) -> None:
        self.engine.dispose()

    def _say(self, connection: Connection, words: str) -> None:
        with self.guarded(connection, _WORDS_GUARD_S):
            connection.exec_driver_sql(words)

    def _roll_back(self, connection: Connection) -> None:
        """Leaves no transaction open on a connection that goes back to the pool."""
        try:
            if not connection.invalidated and _in_transaction(connection):
                self._say(connection, "ROLLBACK")
        except DBAPIError:
            connection.invalidate()

    @contextlib.contextmanager
    def _write_lock(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        try:
            self._lock.acquire()
        except LockTimeout as error:
            raise LedgerBusy("another process is writing") from error
        try:
            yield
        finally:
            self._lock.release()


def libpq_url(url: str) -> str:
    """`url` as libpq takes it. Platforms write `postgres://`, SQLAlchemy's users `postgresql+psycopg2://`."""
    return re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", url)


def _in_transaction(connection: Connection) -> bool:
    raw: Any = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        return raw.in_transaction
    return bool(raw.info.transaction_status != TRANSACTION_STATUS_IDLE)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error


def _postgres_engine(url: str, pool_size: int, pool_timeout: float) -> Engine:
    keepalives: dict[str, Any] = _KEEPALIVES

    def connect() -> Any:
        # libpq itself reads the URL, so that multi-host and TLS parameters mean what they mean to psql.
        return psycopg2.connect(
            libpq_url(url),
            connect_timeout=_CONNECT_TIMEOUT_S,
            tcp_user_timeout=_TCP_USER_TIMEOUT_MS,
            application_name="protecao",
            **keepalives,
        )

    return create_engine(
        "postgresql+psycopg2://",
        creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        pool_recycle=1800,
        pool_use_lifo=True,
        use_native_hstore=False,
        # For good: switched per use, each connection that comes back is a round trip (SET) that nobody guards.
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )


def _sqlite_engine(path: Path, pool_size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=pool_size,
        max_overflow=2,
        pool_timeout=_SQLITE_LOCK_TIMEOUT_S,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: `writing` does, with the lock held.
        connection.isolation_level = None
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
