"""How everything here connects, to Postgres and to a SQLite file: one place for time-outs, keepalives and locks."""

from __future__ import annotations

import re
import select
from pathlib import Path
from typing import Any

import psycopg2
from filelock import FileLock
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from failover.connecting import patiently

_CONNECT_TIMEOUT_S = 2
#: Both are needed: a user time-out alone leaves a read hanging, keepalives alone leave a write hanging.
_KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5_000,
}
_SQLITE_LOCK_TIMEOUT_S = 5.0
_PRAGMAS = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


def postgres_engine(url: str, name: str, *, pool_size: int, pool_timeout: float = 2.0) -> Engine:
    """At most `pool_size` connections called `name`, made at first use, each statement standing alone."""
    plain = libpq_url(url)

    def connect() -> Any:
        # libpq itself reads the URL, so that multi-host and TLS parameters mean what they mean to psql.
        return psycopg2.connect(plain, connect_timeout=_CONNECT_TIMEOUT_S, application_name=name, **_KEEPALIVES)

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
        # For good: switched per use, each connection that comes back is a round trip (SET) that nobody guards.
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def is_new(_connection: Any, record: Any) -> None:
        record.info["new"] = True

    @event.listens_for(engine, "checkout")
    def is_alive(connection: Any, record: Any, _proxy: object) -> None:
        # A server that ends says so on its idle connections: seen here, its restart costs nobody a statement. Of a new
        # connection the first statement says it: the pool does not make a third, and raises an error of its own.
        if not record.info.pop("new", False) and (connection.closed or _is_readable(connection)):
            raise DisconnectionError("its server has ended it")

    return engine


def sqlite_engine(path: Path, *, pool_size: int, max_overflow: int) -> Engine:
    """Connections to a file, made at first use, on which nobody begins a transaction but who says so."""
    engine = create_engine(
        f"sqlite:///{path}",
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
    return re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", url)


def _is_readable(connection: Any) -> bool:
    """Whether an open psycopg2 connection has something to read, which an idle one has when its server ended it."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection], [], [], 0)[0])
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    return bool(ready.poll(0))
