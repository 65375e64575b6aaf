"""The ledger's connections: what stands alone, what is one transaction, and what a frozen server cannot hold."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTimeout
from psycopg2 import errorcodes
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection, PoolProxiedConnection, text
from sqlalchemy.event import listens_for
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api import logs
from api.ledger.errors import (
    LedgerBusy,
    LedgerError,
    LedgerReadOnly,
    LedgerUnavailable,
    NoConnection,
    no_usage,
    translate,
)
from failover.causes import DRIVER_ERRORS, Cause, cause_of, translated, words_of_a_function
from failover.connecting import connecting_within
from failover.engines import FIRST, Pools, postgres_engine, sqlite_engine, write_lock
from failover.session import DEFAULT_SCHEMA, Limits, Session, taken_apart
from failover.watchdog import Watchdog

_log = logs.get("ledger")

#: For statements whose caller gives them no time of its own.
_LIMITS = Limits(statement_ms=60_000, lock_ms=10_000, idle_ms=10_000)
#: A table that others lock is looked at later: who shares the connection, the heartbeat above all, must get through.
_ONE_MOMENT = Limits(statement_ms=20_000, lock_ms=300, idle_ms=30_000)
#: What `LedgerReadOnly` says where no statement was refused, only asked about.
READ_ONLY = "SQLSTATE 25006: the server takes reads only"
#: For BEGIN, COMMIT and ROLLBACK: only a frozen server gets here.
_TRANSACTION_GUARD_S = 2.5
#: How long a connection that others use is waited for, and how often a waiting call checks whether it still should.
_POOL_S, _ASK_EVERY_S = 2.0, 0.02
#: What the pragmas of `failover.engines` set.
_BUSY_TIMEOUT_MS = 5000
#: What failed sooner says nothing to those who wait: a connection that the ledger ends breaks at once.
_SILENT_S = 0.2


#: What a table, and a function, that is not found is reported as.
_NOT_FOUND = (errorcodes.UNDEFINED_TABLE, errorcodes.UNDEFINED_FUNCTION)
_MAY_USE = text("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema")


def _never() -> bool:
    return False


def _always() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class AcquirePolicy:
    """How long, and under which conditions, a caller waits for a connection.

    `connect_s`: how long it may take to come about, None: as long as libpq takes. `wait_s`: how long one that others
    use is waited for. `given_up`: whether there is no use in waiting for one any more. `not_before`: the moment
    (monotonic) before which none was made that can be believed.
    """

    connect_s: float | None = None
    wait_s: float = _POOL_S
    given_up: Callable[[], bool] = _never
    not_before: Callable[[], float] = _always


_PATIENT = AcquirePolicy()


class Database:
    """A pool of connections to one database. Connects at first use, never when it is made."""

    def __init__(self, url: str, *, pool_size: int = 2, pools: Pools | None = None, shared: Path | None = None) -> None:
        """`pools`: the others of this process on the same database.

        `shared`: a lock's file. Then all processes that name it have one connection to a server among them, which is
        made and closed with each use; the disk permitting.
        """
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        schema = taken_apart(url)[1]
        #: What goes before the statements of a message on Postgres.
        self.session = Session(schema or DEFAULT_SCHEMA)
        #: Whether an operator named the schema.
        self.schema_given = schema is not None
        self._pools = pools or Pools()
        self._lock: FileLock | None = None
        #: An embedded ledger's file, None for a server's.
        self.file: Path | None = None
        self._inode: int | None = None
        if self.is_sqlite:
            self.file = path = Path(url.removeprefix("sqlite:///"))
            self._lock = write_lock(path)
            self.engine = sqlite_engine(path, pool_size=pool_size, max_overflow=2)
        else:
            self.engine = postgres_engine(
                url, "protecao", session=self.session, limits=_LIMITS, pools=self._pools, pool_size=pool_size
            )
            listens_for(self.engine, "connect")(_keep_its_age)
        self.shared = shared
        self._free = threading.BoundedSemaphore(1 if shared else pool_size)
        self._shared = FileLock(shared, poll_interval=_ASK_EVERY_S, thread_local=False) if shared else None
        self._silent_at = float("-inf")
        self._watchdog = Watchdog()
        self._words: str | None = None
        #: When (monotonic) it last did what was asked of it, None before it ever did.
        self.answered_at: float | None = None

    @property
    def is_missing(self) -> bool:
        """Whether it is an embedded ledger whose file is not there."""
        return self.file is not None and not self.file.exists()

    def make_file(self) -> None:
        """Makes an embedded ledger's file where there is none: nothing else does. Raises OSError."""
        if self.file is not None:
            self.file.touch()

    @contextlib.contextmanager
    def reading(self, limits: Limits = _LIMITS) -> Iterator[Connection]:
        """A connection on which each statement stands alone. Raises `LedgerError`, never a driver's error."""
        with self._turn(), self._translated(), self.engine.connect() as connection:
            yield connection.execution_options(**{FIRST: self.session.alone(limits)})
        self.answered_at = time.monotonic()

    @contextlib.contextmanager
    def reading_one_moment(self) -> Iterator[Connection]:
        """One transaction whose statements all see what was there at the first. Raises `LedgerError`.

        `LedgerReadOnly` from a server that takes no writes: what it shows may be of the time before its successor.
        """
        begin = "BEGIN" if self.is_sqlite else self.session.begin(_ONE_MOMENT, "REPEATABLE READ")
        with self._turn(), self._translated(), self._transaction(begin) as connection:
            yield connection
        self.answered_at = time.monotonic()

    @contextlib.contextmanager
    def writing(self, limits: Limits = _LIMITS) -> Iterator[Connection]:
        """One transaction, committed when the block ends well. Raises `LedgerError`, never a driver's error."""
        begin = "BEGIN IMMEDIATE" if self.is_sqlite else self.session.begin(limits)
        with (
            self._turn(),
            self._translated(),
            self._lock or contextlib.nullcontext(),
            self._transaction(begin) as connection,
        ):
            yield connection
        self.answered_at = time.monotonic()

    def is_being_written(self) -> bool:
        """Whether another process holds the SQLite file now. Waits for nothing."""
        assert self._lock is not None
        try:
            with self._lock.acquire(blocking=False), translated(translate), self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                try:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                    connection.exec_driver_sql("ROLLBACK")
                finally:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        except (LockTimeout, LedgerBusy):
            return True
        return False

    @contextlib.contextmanager
    def guarded(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Ends whatever `connection` is waiting for after `seconds`, even on a server that is frozen."""
        if self.is_sqlite:
            yield
            return
        with self._watchdog.guard(connection.connection.driver_connection, seconds):
            yield

    @contextlib.contextmanager
    def driver(self, terms: AcquirePolicy = _PATIENT) -> Iterator[Any]:
        """The driver's own connection, where SQLAlchemy's costs more than the statement. Raises `LedgerError`.

        One that breaks is dropped, and every idle one with it: what ended it (a restart, a failover) ended those too.
        So is one whose server turns out to be read-only, with all others of this process.
        """
        with self._turn(terms), self._translated():
            with connecting_within(terms.connect_s):
                pooled = self._taken(terms.not_before())
            connection: Any = pooled.driver_connection
            try:
                yield connection
            except BaseException as error:
                if _is_read_only(error) and self._pools.renew():
                    pooled.invalidate()
                elif connection.closed:
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

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raises `LedgerError` in place of a driver's error in the block, which has given its connection back by then.

        To a role that may not use their schema, tables and functions are not there: it is the right that is missing.
        """
        try:
            with translated(translate):
                yield
        except LedgerError as error:
            self._log_words_of_a_function(error.__cause__)
            if error.sqlstate in _NOT_FOUND and self._may_not_use_its_schema():
                raise no_usage(self.session.schema) from error
            raise

    def _log_words_of_a_function(self, error: BaseException | None) -> None:
        """What a function of the database said of itself stands here only, and once until it says something else."""
        words = None if error is None else words_of_a_function(error)
        if words is not None and words != self._words:
            self._words = words
            _log.warning("a function of the database raised an error", extra={"reason": words})

    def _may_not_use_its_schema(self) -> bool:
        try:
            with self.engine.connect() as connection, self.guarded(connection, _TRANSACTION_GUARD_S):
                return connection.execute(_MAY_USE, {"schema": self.session.schema}).scalar() is False
        except DRIVER_ERRORS:
            return False

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            try:
                self._begin(connection, begin)
                yield connection
                if _in_transaction(connection):  # the block may have ended it in a message of its own
                    self._send(connection, "COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise

    @contextlib.contextmanager
    def _turn(self, terms: AcquirePolicy = _PATIENT) -> Iterator[None]:
        """A connection's worth of the pool. Raises `NoConnection` where none becomes free.

        Who waited while another found the ledger silent does not wait for the same silence once more.
        """
        if self.file is not None:
            self._require_the_same(self.file)
            yield
            return
        began = time.monotonic()
        while not self._free.acquire(timeout=_ASK_EVERY_S):
            if terms.given_up():
                raise LedgerUnavailable("the ledger is away") from PoolTimeout()
            if time.monotonic() - began > terms.wait_s:
                raise NoConnection("no connection became free") from PoolTimeout()
        try:
            if self._silent_at > began:
                raise LedgerUnavailable("another call found it silent")
            with self._alone_of_all(terms), self._listening():
                yield
        finally:
            self._free.release()

    def _require_the_same(self, file: Path) -> None:
        """Lets go of connections to a file that another has taken the place of. Raises `LedgerUnavailable`.

        What is written to a file that was moved away or deleted is answered for, and may never be found again.
        """
        try:
            inode = file.stat().st_ino
        except OSError as error:
            raise LedgerUnavailable(f"{file}: {error.strerror}") from error
        if self._inode is not None and inode != self._inode:
            self.engine.dispose()
        self._inode = inode

    @contextlib.contextmanager
    def _alone_of_all(self, terms: AcquirePolicy) -> Iterator[None]:
        """No other process that shares the connection has one meanwhile. Raises `NoConnection`."""
        if self._shared is None:
            yield
            return
        try:
            self._shared.acquire(timeout=terms.wait_s)
        except LockTimeout as error:
            raise NoConnection("another process of this node uses the connection") from PoolTimeout(str(error))
        except OSError:
            yield  # a disk that takes nothing keeps no admin out
            return
        try:
            yield
        finally:
            self.engine.dispose()
            self._shared.release()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Notes it, before the next one's turn, when the ledger lets the block wait and then fails."""
        began = time.monotonic()
        try:
            yield
        except LedgerUnavailable:
            if time.monotonic() - began >= _SILENT_S:
                self._silent_at = time.monotonic()
            raise

    def _taken(self, not_before: float) -> PoolProxiedConnection:
        """A connection of the pool, or a new one instead of one that is not to be believed any more."""
        while True:
            pooled = self.engine.raw_connection()
            if pooled.info["made_at"] >= not_before:
                return pooled
            pooled.invalidate()

    def _begin(self, connection: Connection, begin: str) -> None:
        """Begins a transaction. Raises `LedgerReadOnly`, found out in the same message."""
        if self.is_sqlite:
            connection.exec_driver_sql(begin)
            return
        with self.guarded(connection, _TRANSACTION_GUARD_S):
            read_only = connection.exec_driver_sql(f"{begin}SHOW transaction_read_only").scalar() == "on"
        if read_only:
            if self._pools.renew():
                connection.invalidate()
            raise LedgerReadOnly(READ_ONLY)

    def _send(self, connection: Connection, statement: str) -> None:
        with self.guarded(connection, _TRANSACTION_GUARD_S):
            connection.exec_driver_sql(statement)

    def _roll_back(self, connection: Connection) -> None:
        """Leaves no transaction open on a connection that goes back to the pool."""
        try:
            if not connection.invalidated and _in_transaction(connection):
                self._send(connection, "ROLLBACK")
        except DBAPIError:
            connection.invalidate()


def _keep_its_age(_connection: object, record: Any) -> None:
    record.info["made_at"] = time.monotonic()


def _is_read_only(error: BaseException) -> bool:
    return isinstance(error, LedgerReadOnly) or cause_of(error) is Cause.READ_ONLY


def _in_transaction(connection: Connection) -> bool:
    raw: Any = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        return raw.in_transaction
    return bool(raw.info.transaction_status != TRANSACTION_STATUS_IDLE)
