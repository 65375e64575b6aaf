"""Applies the migrations at start, under a lock: any number of nodes may start in the same second.

A migration only adds what the previous release can live with, so an older node goes on with a newer schema, and a
schema never goes back. Alembic is imported only where there is something to apply: it costs a third of a second.
The database may be others' as well: what is there and not ours is named, and left as it is (see `neighbours`).
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection, insert, select, text

from api.ids import new_id
from api.ledger import neighbours, tables
from api.ledger.database import Database
from api.ledger.errors import LedgerUnsuitable
from failover.session import Limits

#: The newest revision in migrations/versions. Revisions are numbers, so that newer and older can be compared.
HEAD = "0007"

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
#: Any constant: it only has to be the same on all nodes.
_ADVISORY_LOCK = 7_203_114_552
#: An index on a large table takes its time, and others wait for who came first.
_LIMITS = Limits(statement_ms=0, lock_ms=60_000, idle_ms=0)


def revision(database: Database) -> str | None:
    """The schema's revision, None where there is no ledger yet. Raises `LedgerError`."""
    if database.is_missing:
        return None
    with database.reading() as connection:
        return neighbours.find_schema(connection).revision


def ledger_id(database: Database) -> str:
    """The ledger's id: the same after a restore from its backup. Raises `LedgerError`."""
    with database.reading() as connection:
        return str(connection.execute(select(tables.ledger.c.ledger_id)).scalar_one())


def upgrade(database: Database) -> bool:
    """Brings the schema to `HEAD`; gives whether there was anything to do.

    Raises `LedgerUnsuitable`, whose sentence says what to do, and the other `LedgerError`.
    """
    database.make_file()
    with database.reading() as connection:
        found = neighbours.find_schema(connection)
    is_newest = (found.revision or "") >= HEAD
    if is_newest and not found.old_name:
        return False
    try:
        with database.writing(_LIMITS) as connection, neighbours.named(database):
            return _upgraded(connection, database)
    except LedgerUnsuitable:
        if is_newest:
            return False  # a role that may make no tables goes on with the old name
        raise


def _upgraded(connection: Connection, database: Database) -> bool:
    if not database.is_sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        neighbours.make_schema(connection, database.session.schema)
    found = neighbours.find_schema(connection)
    if found.revision is None:
        neighbours.require_room(connection, database)
    elif found.old_name:
        neighbours.take_over(connection, found.revision)
    if (found.revision or "") >= HEAD:
        return False
    _run_alembic(connection)
    _found_ledger(connection)
    return True


def _run_alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerUnsuitable(f"the schema cannot be brought to revision {HEAD}: {error}") from error


def _found_ledger(connection: Connection) -> None:
    """Gives a new ledger its identity and the log its first position."""
    if connection.execute(tables.ledger.select()).first() is None:
        founding = {"id": 1, "ledger_id": new_id(), "generation": 1, "created_at": time.time()}
        connection.execute(insert(tables.ledger), founding)
        connection.execute(insert(tables.log_head), {"id": 1, "seq": 0})
