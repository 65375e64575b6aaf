"""`licenses`: found by id, key, hint, e-mail or reference; made, shown and changed one by one, and in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from license_admin import bulk, fields, lookup
from license_admin.api import part
from license_admin.commands.transfer import download_to, export, import_
from license_admin.session import Session, confirm, connected, limit_option, request_id_option, yes_option

_PATH = "/v1/licenses"
COLUMNS = ("id", "key_hint", "status", "product", "name", "email", "expires_at", "machines", "last_seen_at")
_FILTERS = {
    "product": "Only of this product (its code).",
    "policy": "Only of this policy (its id or name).",
    "status": "active, suspended, banned or expired.",
    "email": "Only of this customer.",
    "key_hint": "The last four characters of the key.",
    "external_ref": "Your own reference.",
    "q": "Part of a name, e-mail, reference or hint.",
}
_WHICH = click.argument("which", metavar="LICENSE")


@click.group("licenses")
def licenses() -> None:
    """Licenses. A key is shown once, when it is made; the servers keep its hash and last four characters.

    LICENSE is an id, a key, an e-mail, a reference of yours, or a key's last four characters. Where several licenses
    fit, they are listed and nothing is done.
    """


licenses.add_command(import_)
licenses.add_command(export)


def _filters(command: Any) -> Any:
    for name, text in reversed(_FILTERS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, help=text)(command)
    return command


@licenses.command("list")
@_filters
@limit_option
@click.option("--csv", "file", type=click.Path(path_type=Path), help="Write all of them to this new CSV file.")
@connected
def list_(session: Session, limit: int | None, file: Path | None, **given: str | None) -> None:
    """List licenses, the newest first."""
    if given["policy"] is not None:
        given["policy"] = lookup.policy_of(session.api, given["policy"])["id"]
    if file is not None:
        download_to(session, file, _PATH, "text/csv", limit=limit, **given)
        return
    session.out.items(session.api.every(_PATH, limit, **given), COLUMNS)


@licenses.command("show")
@_WHICH
@connected
def show(session: Session, which: str) -> None:
    """Show one license."""
    session.out.item(lookup.license_of(session.api, which))


@licenses.command("find")
@click.argument("text")
@connected
def find(session: Session, text: str) -> None:
    """List the licenses whose name, e-mail, reference or hint contains TEXT."""
    session.out.items(session.api.every(_PATH, q=text), COLUMNS)


@licenses.command("create")
@fields.options(fields.LICENSE, required=("policy",))
@click.option("--count", type=click.IntRange(min=1), help="So many, alike but for their keys.")
@click.option("--csv", "file", type=click.Path(path_type=Path), help="Write the keys to this new CSV file.")
@request_id_option
@connected
def create(session: Session, count: int | None, file: Path | None, request_id: str | None, **values: Any) -> None:
    """Make a license, or many, and show the keys this once: on the terminal, or in a file."""
    body = fields.body_of(values)
    body["policy"] = lookup.policy_of(session.api, body["policy"])["id"]
    if count is None and file is None:
        session.out.item(session.api.post(_PATH, body, request_id))
    elif file is None:
        session.out.items(bulk.created(session, body, count or 1, request_id), ("id", "key"))
    else:
        made = bulk.created_to(session, body, count or 1, file, request_id)
        text = f"{made} licenses were made; their keys are in {file}, and nowhere else."
        session.out.done(text, {"created": made, "file": str(file)})


@licenses.command("update")
@_WHICH
@fields.options(fields.LICENSE, skip=("key",))
@connected
def update(session: Session, which: str, **values: Any) -> None:
    """Change what is named of a license."""
    body = fields.body_of(values)
    if "policy" in body:
        body["policy"] = lookup.policy_of(session.api, body["policy"])["id"]
    found = lookup.license_of(session.api, which)
    session.out.item(session.api.patch(f"{_PATH}/{part(found['id'])}", body))


@licenses.command("delete")
@_WHICH
@yes_option
@connected
def delete(session: Session, which: str, yes: bool) -> None:
    """Delete a license for good."""
    found = lookup.license_of(session.api, which)
    confirm(yes, f"Delete the license {found['id']} ({found['name'] or found['email'] or 'no name'}) for good?")
    session.api.delete(f"{_PATH}/{part(found['id'])}")
    session.out.done("Deleted.")


def _act(session: Session, which: str, name: str, request_id: str | None, body: dict[str, Any]) -> None:
    found = lookup.license_of(session.api, which)
    session.out.item(session.api.post(f"{_PATH}/{part(found['id'])}/actions/{name}", body, request_id))


def _action(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @_WHICH
    @request_id_option
    @connected
    def act(session: Session, which: str, request_id: str | None) -> None:
        _act(session, which, name, request_id, {})

    return act


for _name, _about in {
    "suspend": "Deny a license until it is reinstated.",
    "reinstate": "Lift a suspension.",
    "check-in": "Reset a license's check-in clock.",
}.items():
    licenses.add_command(_action(_name, _about))


@licenses.command("ban")
@_WHICH
@yes_option
@request_id_option
@connected
def ban(session: Session, which: str, yes: bool, request_id: str | None) -> None:
    """Deny a license for good. There is no way back."""
    found = lookup.license_of(session.api, which)
    confirm(yes, f"Ban the license {found['id']} ({found['name'] or found['email'] or 'no name'}) for good?")
    _act(session, found["id"], "ban", request_id, {})


@licenses.command("renew")
@_WHICH
@click.option("--days", type=click.IntRange(min=1), help="So many; else the policy's duration.")
@request_id_option
@connected
def renew(session: Session, which: str, days: int | None, request_id: str | None) -> None:
    """Extend a license from the later of now and its expiry."""
    _act(session, which, "renew", request_id, {} if days is None else {"days": days})


@licenses.command("reissue")
@_WHICH
@click.option("--key", help="A key of your own in place of a new one.")
@request_id_option
@connected
def reissue(session: Session, which: str, key: str | None, request_id: str | None) -> None:
    """Give a license a new key, shown this once; the old one is nobody's from then on."""
    _act(session, which, "reissue", request_id, {} if key is None else {"key": key})
