"""`flask license`: made, shown and changed, one by one; by the hundred in `license_files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from api.admin.actions import ACTIONS
from api.admin.kinds import Kind
from api.admin.schemas import LicenseBody
from api.cli.context import open_context
from api.cli.license_files import export, import_, write_created
from api.cli.license_view import readable
from api.cli.options import body_of, body_options
from api.cli.output import as_json, show_list
from api.cli.resources import (
    WAYS,
    delete_command,
    every,
    limit_option,
    list_command,
    named_in,
    show_as,
    show_command,
    update_command,
)

_COLUMNS = (
    "id", "key_hint", "status", "product", "name", "email", "expires_at", "machines", "max_machines", "last_seen_at",
)  # fmt: skip
_FILTERS = ("product", "policy", "status", "email", "key_hint", "external_ref", "q")
_MACHINE_COLUMNS = ("id", "fingerprint", "name", "platform", "alive", "last_seen_at", "created_at")


@click.group("license")
def license_() -> None:
    """Licenses. A key is shown once, when it is made; the ledger keeps its hash and last four characters."""


license_.add_command(list_command(Kind.LICENSE, _COLUMNS, _FILTERS, readable))
license_.add_command(show_command(Kind.LICENSE, readable))
license_.add_command(update_command(Kind.LICENSE, skip=("key",), readable=readable))
license_.add_command(delete_command(Kind.LICENSE))
license_.add_command(import_)
license_.add_command(export)


@license_.command("create")
@body_options(LicenseBody, required=LicenseBody.REQUIRED)
@click.option("--count", type=click.IntRange(min=1), default=1, help="So many, alike but for their keys.")
@click.option("--csv", "file", type=click.Path(path_type=Path), help="Write the keys to this new file (mode 0600).")
@as_json
def create(count: int, file: Path | None, as_json: bool, **values: Any) -> None:
    """Make a license, or many, and show the keys this once: on the terminal, or in a file."""
    with open_context() as context:
        body = named_in(context.resources, body_of(values))
        if file is not None:
            write_created(context.resources, body, count, file)
        elif count == 1:
            show_as(context.resources.create(Kind.LICENSE, body), as_json, readable)
        else:
            show_list(context.resources.create_many(body, count), ("id", "key"), as_json)


@license_.command("machines")
@click.argument("name")
@limit_option
@as_json
def machines(name: str, limit: int | None, as_json: bool) -> None:
    """List the machines that hold a seat of a license, the newest first.

    NAME: its id, key, the last four characters of the key, its e-mail address, external_ref or name.
    """
    with open_context() as context:
        id = context.resources.named(Kind.LICENSE, name)["id"]
        found = list(every(context.resources, Kind.MACHINE, {"license": id}, limit))
    show_list(found, _MACHINE_COLUMNS, as_json)


@license_.command("free")
@click.argument("machine")
def free(machine: str) -> None:
    """Free the seat that MACHINE holds: the id of a machine, as `flask license machines` lists it."""
    with open_context() as context:
        context.resources.delete(Kind.MACHINE, machine)
    click.echo("The seat is free.")


def _action(name: str) -> click.Command:
    @click.command(name, help=f"{_ABOUT[name]} {WAYS[Kind.LICENSE]}")
    @click.argument("which", metavar="NAME")
    @body_options(ACTIONS[name].body)
    @as_json
    def act(which: str, as_json: bool, **values: Any) -> None:
        with open_context() as context:
            id = context.resources.named(Kind.LICENSE, which)["id"]
            show_as(context.resources.act(id, name, body_of(values)), as_json, readable)

    return act


_ABOUT = {
    "suspend": "Deny a license until it is reinstated.",
    "reinstate": "Lift a suspension.",
    "ban": "Deny a license for good. There is no way back.",
    "renew": "Extend a license from the later of now and its expiry.",
    "reissue": "Give a license a new key, shown this once; the old one is nobody's from then on.",
    "check-in": "Reset a license's check-in clock.",
}
for _name in ACTIONS:
    license_.add_command(_action(_name))
