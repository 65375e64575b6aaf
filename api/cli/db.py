"""`flask db`: the ledger's schema, and whether what it says twice agrees."""

from __future__ import annotations

import math
from typing import Any

import click
from sqlalchemy import Connection, case, func, select

from api.cli.context import copy_in, open_context, open_ledger_only
from api.cli.output import as_json, show, show_list
from api.ledger import migrate, tables
from api.ledger.database import Database
from api.snapshot.adoption import ADOPTED, copied_in

_licenses, _machines = tables.licenses.c, tables.machines.c


@click.group("db")
def db() -> None:
    """The ledger's schema and its soundness."""


@db.command("upgrade")
def upgrade() -> None:
    """Bring the schema to the newest revision; a node does the same when it starts.

    Also fills the index that licenses are searched by, all of it: a node leaves a large ledger's to the leader.
    """
    with open_ledger_only() as database:
        changed = migrate.upgrade(database)
        migrate.fill_search_index(database, math.inf, anew=True)
        revision = migrate.revision(database)
    click.echo(f"The schema is {'now ' if changed else ''}at {revision}, and every license can be searched for.")


@db.command("current")
@as_json
def current(as_json: bool) -> None:
    """Show the schema's revision and the newest there is."""
    with open_ledger_only() as database:
        show({"revision": migrate.revision(database), "newest": migrate.HEAD}, as_json)


@db.command("adopt")
@click.option("--instead-of", help="The id of the ledger that nodes hold a copy of; else the one copied in DATA_DIR.")
@as_json
def adopt(instead_of: str | None, as_json: bool) -> None:
    """Say that the ledger of these settings is the one that is meant, with the rows that it has now.

    Nodes that wait because it has no licenses, or no longer shows some, go on with it, and replace the copies that they
    hold of what was there before. Say so once; every node reads it in the ledger.
    """
    with open_context(adopting=True) as context:
        with copy_in(context.settings) as copy:
            copied = None if copy is None else copied_in(copy)
        before = instead_of or (None if copied is None else copied.ledger_id)
        if before is None:
            raise click.ClickException("DATA_DIR holds no copy of a ledger; name it with --instead-of")
        with context.journal.change() as change:
            ledger_id = str(change.connection.execute(select(tables.ledger.c.ledger_id)).scalar_one())
            licenses = int(change.connection.execute(select(func.count()).select_from(tables.licenses)).scalar_one())
            change.commit(context.journal.event(ADOPTED, instead_of=before))
    done = {"ledger": ledger_id, "licenses": licenses, "instead_of": before}
    if as_json:
        show(done, as_json)
        return
    click.echo("Ledger {ledger} with {licenses} licenses is meant, in place of {instead_of}.".format(**done))


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
