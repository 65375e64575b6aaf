"""`machines`: who holds a license's seats, and how a seat is freed."""

from __future__ import annotations

from typing import Any

import click

from license_admin import fields, lookup
from license_admin.api import part
from license_admin.errors import Misused, NotOne
from license_admin.session import Session, connected, limit_option, request_id_option

_PATH = "/v1/machines"
_COLUMNS = ("id", "license", "fingerprint", "name", "platform", "alive", "last_seen_at", "created_at")
_license_option = click.option("--license", "which", help="The license: its id, key, hint, e-mail or reference.")


@click.group("machines")
def machines() -> None:
    """Machines that hold a seat of a license."""


@machines.command("list")
@_license_option
@click.option("--fingerprint", help="Only machines that programs call so.")
@limit_option
@connected
def list_(session: Session, which: str | None, fingerprint: str | None, limit: int | None) -> None:
    """List machines, the newest first."""
    license = None if which is None else lookup.license_of(session.api, which)["id"]
    session.out.items(session.api.every(_PATH, limit, license=license, fingerprint=fingerprint), _COLUMNS)


@machines.command("show")
@click.argument("id", metavar="MACHINE")
@connected
def show(session: Session, id: str) -> None:
    """Show the machine with this id."""
    session.out.item(session.api.get(f"{_PATH}/{part(id)}"))


@machines.command("create")
@fields.options(fields.MACHINE, required=("license", "fingerprint"))
@request_id_option
@connected
def create(session: Session, request_id: str | None, **values: Any) -> None:
    """Give a machine a seat, as if its program had activated it."""
    body = fields.body_of(values)
    body["license"] = lookup.license_of(session.api, body["license"])["id"]
    session.out.item(session.api.post(_PATH, body, request_id))


@machines.command("update")
@click.argument("id", metavar="MACHINE")
@fields.options(fields.MACHINE, skip=("license", "fingerprint"))
@connected
def update(session: Session, id: str, **values: Any) -> None:
    """Change the name or platform of the machine with this id."""
    session.out.item(session.api.patch(f"{_PATH}/{part(id)}", fields.body_of(values)))


@machines.command("free")
@click.argument("id", metavar="MACHINE", required=False)
@_license_option
@click.option("--fingerprint", help="What the program calls the machine; with --license.")
@connected
def free(session: Session, id: str | None, which: str | None, fingerprint: str | None) -> None:
    """Free the seat of the machine with this id, or of the one of a license.

    With --license alone: of its machine where it has just one; with several they are listed and none is freed.
    """
    if (id is None) == (which is None):
        raise Misused("name the machine by its id, or its --license")
    session.api.delete(f"{_PATH}/{part(id or _machine_of(session, str(which), fingerprint))}")
    session.out.done("The seat is free.")


def _machine_of(session: Session, which: str, fingerprint: str | None) -> str:
    license = lookup.license_of(session.api, which)["id"]
    found = list(session.api.every(_PATH, license=license, fingerprint=fingerprint))
    if len(found) != 1:
        text = (
            f"{len(found)} machines of the license fit; name one by its id"
            if found
            else "the license has no such machine"
        )
        raise NotOne(text, found)
    return str(found[0]["id"])
