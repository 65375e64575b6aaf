"""How everything here connects, to Postgres and to a SQLite file: one place for time-outs, keepalives and locks."""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
from filelock import FileLock
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, parse_dsn
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from failover.causes import Cause, cause_of
from failover.connecting import patiently
from failover.session import Limits, Session, taken_apart

_CONNECT_TIMEOUT_S = 2
#: Both are needed: a user time-out alone leaves a read hanging, keepalives alone leave a write hanging.
_KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5_000,
}
#: A server that stays read-only is left for another so often at most: each time costs a new connection.
_RENEW_EVERY_S = 2.0
_UNICODE = "UTF8"
#: The execution option with what goes before each statement of a connection.
FIRST = "protecao_first"
_SQLITE_LOCK_TIMEOUT_S = 5.0
_PRAGMAS = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


class Pools:
    """The pools of one process on one database: what one of them finds to be read-only, none of them keeps.

    The next connection then walks the hosts of the URL again, and finds the one that was promoted.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._engines: list[Engine] = []
        self._renewed_at = float("-inf")

    def add(self, engine: Engine) -> None:
        """From now on `engine`'s connections go with the others'."""
        self._engines.append(engine)

    def renew(self) -> bool:
        """Lets go of every idle connection, and says so; False where that was done a moment ago."""
        with self._lock:
            if self._monotonic() - self._renewed_at < _RENEW_EVERY_S:
                return False
            self._renewed_at = self._monotonic()
        for engine in self._engines:
            engine.dispose()
        return True


def postgres_engine(
    url: str, name: str, *, session: Session, limits: Limits, pools: Pools, pool_size: int, pool_timeout: float = 2.0
) -> Engine:
    """At most `pool_size` connections called `name`, made at first use, each statement standing alone.

    Before each that is not part of a transaction goes what `session` sets, with `limits`, or what the connection's
    execution option `FIRST` says instead.
    """

    def connect() -> Any:
        return connected(url, name)

    def connect_in_time() -> Any:
        return patiently(connect)

    engine = create_engine(
        "postgresql+psycopg2://",
        creator=connect_in_time,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        pool_recycle=1800,
        pool_use_lifo=True,
        use_native_hstore=False,
        # For good: switched per use, each connection that comes back is an unguarded round trip (SET).
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    pools.add(engine)
    _listen(engine, session.alone(limits), pools)
    return engine


def connected(url: str, name: str) -> Any:
    """A new psycopg2 connection called `name`, in UTF-8. Raises `psycopg2.Error`."""
    # libpq itself reads the URL, so that multi-host and TLS parameters mean what they mean to psql.
    plain = libpq_url(url)
    given = parse_dsn(plain)
    ours = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": name, "client_encoding": _UNICODE, **_KEEPALIVES}
    if "," in given.get("host", ""):
        # All that is kept here is written: of several hosts the one that takes writes is meant.
        ours["target_session_attrs"] = given.get("target_session_attrs", "read-write")
    connection = psycopg2.connect(plain, **ours)
    encoding = connection.info.parameter_status("server_encoding") or _UNICODE
    if encoding.upper().replace("-", "") != _UNICODE:
        connection.close()
        raise psycopg2.OperationalError(
            f"the database has the encoding {encoding}, which cannot hold every text: make another with "
            "createdb -E UTF8 -T template0 NAME, and name that one in the URL"
        )
    return connection


def _listen(engine: Engine, preamble: str, pools: Pools) -> None:
    @event.listens_for(engine, "connect")
    def is_new(_connection: Any, record: Any) -> None:
        record.info["new"] = True

    @event.listens_for(engine, "checkout")
    def is_alive(connection: Any, record: Any, _proxy: object) -> None:
        # A server that ends says so on its idle connections: seen here, its restart fails no statement. Of a new
        # connection the first statement fails with it: the pool does not make a third, and raises an error of its own.
        if not record.info.pop("new", False) and _has_ended(connection):
            raise DisconnectionError("its server has ended it")

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def set_first(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        in_transaction = cursor.connection.info.transaction_status != TRANSACTION_STATUS_IDLE
        said_before = in_transaction or statement.startswith("BEGIN")
        first = "" if said_before else connection.get_execution_options().get(FIRST, preamble)
        return first + statement, parameters

    @event.listens_for(engine, "handle_error")
    def is_read_only(context: Any) -> None:
        if cause_of(context.original_exception) is Cause.READ_ONLY and pools.renew():
            context.is_disconnect = True  # this one goes as well


def sqlite_engine(path: Path, *, pool_size: int, max_overflow: int) -> Engine:
    """Connections to a file, made at first use, on which a transaction begins only by an explicit BEGIN.

    The file must be there: one that was moved away is not to be made anew by the next connection.
    """
    engine = create_engine(
        f"sqlite:///file:{quote(str(path))}?mode=rw&uri=true",
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=_SQLITE_LOCK_TIMEOUT_S,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: the writer does, with the lock held.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine


def write_lock(path: Path) -> FileLock:
    """Held by the one writer of a SQLite file. Raises `filelock.Timeout` after 5 s.

    Two writing processes starve one of them on SQLite's own lock ("database is locked" after 5 s, measured).
    """
    return FileLock(f"{path}.lock", timeout=_SQLITE_LOCK_TIMEOUT_S, poll_interval=0.001)


def libpq_url(url: str) -> str:
    """`url` as libpq takes it. Platforms write `postgres://`, SQLAlchemy's users `postgresql+psycopg2://`."""
    return re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", taken_apart(url)[0])


def _has_ended(connection: Any) -> bool:
    """Whether its server has ended an idle psycopg2 connection. Word for who listens on it is taken in, and let go."""
    if connection.closed:
        return True
    if not _is_readable(connection):
        return False
    try:
        connection.poll()
    except psycopg2.Error:
        return True
    # Anything else is its last word, which the end of the connection may follow a moment later.
    has_word = bool(connection.notifies)
    connection.notifies.clear()
    return bool(connection.closed or not has_word or _is_readable(connection))


def _is_readable(connection: Any) -> bool:
    """Whether an open psycopg2 connection has something to read, which an idle one has when its server ended it."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection], [], [], 0)[0])
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    return bool(ready.poll(0))
