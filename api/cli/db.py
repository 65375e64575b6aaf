"""`flask db`: the ledger's schema, and whether what it says twice agrees."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy import Connection, case, func, select

from api.cli.desk import open_ledger_only
from api.cli.output import as_json, show, show_list
from api.ledger import migrate, tables
from api.ledger.database import Database

_licenses, _machines = tables.licenses.c, tables.machines.c


@click.group("db")
def db() -> None:
    """The ledger's schema and its soundness."""


@db.command("upgrade")
def upgrade() -> None:
    """Bring the schema to the newest revision; a node does the same when it starts."""
    with open_ledger_only() as database:
        changed = migrate.upgrade(database)
        revision = migrate.revision(database)
    click.echo(f"The schema is {'now ' if changed else ''}at {revision}.")


@db.command("current")
@as_json
def current(as_json: bool) -> None:
    """Show the schema's revision and the newest there is."""
    with open_ledger_only() as database:
        show({"revision": migrate.revision(database), "newest": migrate.HEAD}, as_json)


@db.command("check")
@as_json
def check(as_json: bool) -> None:
    """Compare licenses' seats with their machines, and the log's head with the log; exit status 1 if they differ."""
    with open_ledger_only() as database:
        if migrate.revision(database) is None:
            raise click.ClickException("The ledger has no schema yet; `flask db upgrade` makes it.")
        found = differences(database)
    if found or as_json:
        show_list(found, ("where", "id", "says", "found"), as_json)
    if found:
        raise click.ClickException(f"{len(found)} differences")
    if not as_json:
        click.echo("Seats and log agree.")


def differences(database: Database) -> list[dict[str, Any]]:
    """What the ledger says in two places and not alike: `where`, `id`, `says`, `found`. Raises `LedgerError`."""
    with database.reading() as connection:
        return [*_seats(connection), *_log(connection)]


def _seats(connection: Connection) -> list[dict[str, Any]]:
    """The licenses whose counts are not those of their machines. One statement, so read at one moment."""
    seats, excess = (func.coalesce(func.sum(case((held, 1), else_=0)), 0) for held in _HELD)
    counted = (
        select(_licenses.id, _licenses.seats, _licenses.excess, seats.label("held"), excess.label("over"))
        .select_from(tables.licenses.outerjoin(tables.machines, _machines.license_id == _licenses.id))
        .group_by(_licenses.id, _licenses.seats, _licenses.excess)
        .having((_licenses.seats != seats) | (_licenses.excess != excess))
        .order_by(_licenses.id)
    )
    found = []
    for row in connection.execute(counted):
        for name, says, is_ in (("seats", row.seats, row.held), ("excess", row.excess, row.over)):
            if says != is_:
                found.append({"where": f"licenses.{name}", "id": row.id, "says": says, "found": int(is_)})
    return found


_HELD = (_machines.active, _machines.active & _machines.excess)


def _log(connection: Connection) -> list[dict[str, Any]]:
    """Whether the log ends where its head says. Whatever prunes the log keeps its last row: followers look for it."""
    head = select(tables.log_head.c.seq).scalar_subquery()
    last = select(func.coalesce(func.max(tables.events.c.seq), 0)).scalar_subquery()
    says, found = connection.execute(select(head, last)).one()
    return [] if says == found else [{"where": "log_head.seq", "id": None, "says": says, "found": found}]
