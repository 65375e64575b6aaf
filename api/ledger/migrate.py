"""Applies the migrations at start, under a lock: any number of nodes may start in the same second.

A migration only adds what the previous release can live with, so an older node goes on with a newer schema, and a
schema never goes back. Alembic is imported only where there is something to apply: it costs a third of a second.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, inspect, text

from api.ids import new_id
from api.ledger import tables
from api.ledger.database import Database

#: The newest revision in migrations/versions. Revisions are numbers, so that newer and older can be told apart.
HEAD = "0001"

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
#: Any constant: it only has to be the same on all nodes.
_ADVISORY_LOCK = 7_203_114_552


def revision(database: Database) -> str | None:
    """The schema's revision, None for an empty database."""
    with database.reading() as connection:
        return _revision(connection)


def upgrade(database: Database) -> bool:
    """Brings the schema to `HEAD`; gives whether there was anything to do. Raises `LedgerError`."""
    if (revision(database) or "") >= HEAD:
        return False
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        if (_revision(connection) or "") >= HEAD:
            return False
        _run_alembic(connection)
        _found_ledger(connection)
        return True


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: Any = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _run_alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _found_ledger(connection: Connection) -> None:
    """Gives a new ledger its identity and the log its first position."""
    if connection.execute(tables.ledger.select()).first() is None:
        founding = {"id": 1, "ledger_id": new_id(), "generation": 1, "created_at": time.time()}
        connection.execute(insert(tables.ledger), founding)
        connection.execute(insert(tables.log_head), {"id": 1, "seq": 0})
