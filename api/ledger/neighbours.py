"""A database that is not ours alone: which tables in it are ours, and what is in their way.

The schema's revision is kept in a table whose name no other program uses. An earlier release kept it in Alembic's own
`alembic_version`, as many programs do: that one counts only beside our own tables, and is never written.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from psycopg2 import errorcodes
from sqlalchemy import Connection, Inspector, inspect, text
from sqlalchemy.exc import DBAPIError

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerUnsuitable, no_usage
from failover.causes import reason_of
from failover.session import DEFAULT_SCHEMA

#: Where the schema's revision is kept.
VERSION_TABLE = "protecao_version"
_OLD_VERSION_TABLE = "alembic_version"
#: What only a ledger of ours has, with the columns that tell it from a table of the same name.
_OURS = {"ledger": {"ledger_id", "generation"}, "log_head": {"seq"}, "check_minutes": {"minute", "writer"}}
_FUNCTION = "record_batch"

_RELATIONS = (
    "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relname = ANY(:names)"
)
_FUNCTIONS = "SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(current_schema()) AND proname = :name"
_ELSEWHERE = """
SELECT n.nspname FROM pg_class l JOIN pg_class h ON h.relnamespace = l.relnamespace AND h.relname = 'log_head'
JOIN pg_class c ON c.relnamespace = l.relnamespace AND c.relname = 'check_minutes'
JOIN pg_namespace n ON n.oid = l.relnamespace
WHERE l.relname = 'ledger' AND n.nspname <> :schema ORDER BY n.nspname LIMIT 1
"""
#: A schema that the session would look into if its role might.
_BARRED = """
SELECT nspname FROM pg_namespace WHERE NOT has_schema_privilege(oid, 'USAGE')
AND nspname = ANY(string_to_array(translate(current_setting('search_path'), '" ', ''), ','))
"""
_DUPLICATES = (errorcodes.DUPLICATE_TABLE, errorcodes.DUPLICATE_OBJECT, errorcodes.DUPLICATE_FUNCTION)


class Found(NamedTuple):
    """The schema's `revision`, None where there is no ledger; `old_name`: it stands where it was kept before."""

    revision: str | None
    old_name: bool = False


def find_schema(connection: Connection) -> Found:
    """What there is of a ledger. Raises `LedgerUnsuitable` for a revision that no release of ours has.

    And `LedgerUnavailable` where the role may not use the schema: what is there is not shown to it then, and what it
    makes would be a temporary table.
    """
    seen = inspect(connection)
    if seen.has_table(VERSION_TABLE):
        return Found(_read(connection, VERSION_TABLE))
    if seen.has_table(_OLD_VERSION_TABLE) and all(_has(seen, name, columns) for name, columns in _OURS.items()):
        return Found(_read(connection, _OLD_VERSION_TABLE), old_name=True)
    barred = None if connection.dialect.name == "sqlite" else connection.execute(text(_BARRED)).scalar()
    if barred is not None:
        raise no_usage(barred)
    return Found(None)


def _has(seen: Inspector, table: str, columns: set[str]) -> bool:
    return seen.has_table(table) and columns <= {column["name"] for column in seen.get_columns(table)}


def take_over(connection: Connection, found: str) -> None:
    """Keeps the revision under the name of our own as well; nodes of the earlier release go on with the old one."""
    connection.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    insert = text(f"INSERT INTO {VERSION_TABLE} VALUES (:found)")  # noqa: S608 - our own name
    connection.execute(insert, {"found": found})


def make_schema(connection: Connection, schema: str | None) -> None:
    """Makes the schema where it is missing. To ask first: even IF NOT EXISTS takes a right that few roles have."""
    there = text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
    if schema is not None and connection.execute(there, {"schema": schema}).first() is None:
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')


def require_room(connection: Connection, database: Database) -> None:
    """Raises `LedgerUnsuitable` where others' tables have the names of ours, or the ledger is in another schema."""
    in_the_way = sorted(_in_the_way(connection))
    if in_the_way:
        named = ", ".join(in_the_way[:5]) + (" and others" if len(in_the_way) > 5 else "")
        raise LedgerUnsuitable(
            f"{_place(database)} has already what another program calls {named}: {_ways_out(database)}"
        )
    if database.is_sqlite or database.schema_given:
        return
    elsewhere = connection.execute(text(_ELSEWHERE), {"schema": database.session.schema}).scalar()
    if elsewhere is not None:
        raise LedgerUnsuitable(
            f"this database has a ledger in its schema {elsewhere} and none in {DEFAULT_SCHEMA}: set LEDGER_SCHEMA to "
            f"{elsewhere} to use it, or to {DEFAULT_SCHEMA} to make another"
        )


def _in_the_way(connection: Connection) -> set[str]:
    names = {name for table in tables.metadata.tables.values() for name in (table.name, *_indexes(table))}
    if connection.dialect.name == "sqlite":
        return names & {row[0] for row in connection.execute(text("SELECT name FROM sqlite_master"))}
    found = set(connection.execute(text(_RELATIONS), {"names": sorted(names)}).scalars())
    return found | {f"{name}()" for name in connection.execute(text(_FUNCTIONS), {"name": _FUNCTION}).scalars()}


def _indexes(table: Any) -> Iterator[str]:
    return (str(index.name) for index in table.indexes)


@contextlib.contextmanager
def named(database: Database) -> Iterator[None]:
    """Turns a refusal within the block into `LedgerUnsuitable`, which says what it means and what to do."""
    try:
        yield
    except DBAPIError as error:
        state, reason = getattr(error.orig, "pgcode", None), reason_of(error)
        if state in _DUPLICATES:
            raise LedgerUnsuitable(
                f"{_place(database)} has what another program made ({reason}): {_ways_out(database)}"
            ) from error
        if state == errorcodes.INSUFFICIENT_PRIVILEGE:
            where = "DATABASE ..." if "for database" in reason else f"SCHEMA {database.session.schema}"
            raise LedgerUnsuitable(
                f"the role of DATABASE_URL may not make the ledger's tables in {_place(database)} ({reason}): let it, "
                f"as with GRANT CREATE ON {where} TO ..., or name another schema in LEDGER_SCHEMA"
            ) from error
        raise


def _read(connection: Connection, table: str) -> str | None:
    """The revision in `table`. Raises `LedgerUnsuitable` where no release of ours has such a one."""
    found: Any = connection.execute(text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608 - our own names
    if found is not None and not re.fullmatch(r"[0-9]{4}", str(found)):
        raise LedgerUnsuitable(
            f"the table {table} says {str(found)[:40]!r}, which is no revision of any release: restore it from a "
            "backup, or name another database or LEDGER_SCHEMA"
        )
    return None if found is None else str(found)


def _place(database: Database) -> str:
    return "the file of the ledger" if database.is_sqlite else f"schema {database.session.schema} of the database"


def _ways_out(database: Database) -> str:
    if database.is_sqlite:
        return "name another file in DB_PATH"
    return "name another schema in LEDGER_SCHEMA (it is made where it is missing), or another database in DATABASE_URL"
