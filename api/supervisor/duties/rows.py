"""Statements that several duties need: rows put in or replaced, numbers gone on from, and the policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from api.ledger.rows import policy_of
from api.ledger.tables import duty_marks, policies
from api.licensing import Policy


def put(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, add: str | None = None) -> None:
    """Inserts `rows`, or replaces those of the same key; where column `add` is given, it is added to what is there.

    One statement, however many rows: over a network each costs a round trip.
    """
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table).values(list(rows))
    keys = [column.name for column in table.primary_key.columns]
    changes: dict[str, ColumnElement[Any]] = {
        name: table.c[name] + insert.excluded[name] if name == add else insert.excluded[name]
        for name in rows[0]
        if name not in keys
    }
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes))


def mark(connection: Connection, name: str) -> int:
    """The number kept under `name`; 0 where there is none yet."""
    return connection.execute(select(duty_marks.c.value).where(duty_marks.c.name == name)).scalar() or 0


def set_mark(connection: Connection, name: str, value: int) -> None:
    put(connection, duty_marks, [{"name": name, "value": value}])


def add_to_mark(connection: Connection, name: str, value: int) -> None:
    if value:
        put(connection, duty_marks, [{"name": name, "value": value}], add="value")


def all_policies(connection: Connection) -> list[Policy]:
    """Every policy there is: few, compared with what is sold under them."""
    columns = (policies.c.id, policies.c.product, policies.c.name, policies.c.rules_json)
    return [policy_of(*row) for row in connection.execute(select(*columns))]
