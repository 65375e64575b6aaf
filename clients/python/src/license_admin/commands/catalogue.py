"""`products` and `policies`: what licenses are sold for, and the rules that they are sold under."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import click

from license_admin import fields, lookup
from license_admin.api import AdminApi, part
from license_admin.session import Session, confirm, connected, limit_option, request_id_option, yes_option


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource that is made, listed, shown, changed and deleted, found by `find`."""

    singular: str
    plural: str
    about: str
    fields: Sequence[fields.Field]
    required: Collection[str]
    columns: Sequence[str]
    find: Callable[[AdminApi, str], dict[str, Any]]
    reference: str

    @property
    def path(self) -> str:
        return f"/v1/{self.plural}"


PRODUCT = Kind(
    "product", "products", "What licenses are sold for.", fields.PRODUCT, ("code", "name"),
    ("id", "code", "name", "created_at"), lookup.product_of, "its id or code",
)  # fmt: skip
POLICY = Kind(
    "policy", "policies", "The rules that licenses are sold under.", fields.POLICY, ("product", "name"),
    ("id", "product", "name", "duration_days", "max_machines", "floating", "max_uses", "entitlements"),
    lookup.policy_of, "its id or name",
)  # fmt: skip


def group_of(kind: Kind) -> click.Group:
    """The commands for all that is done to this kind."""
    group = click.Group(kind.plural, help=kind.about)
    for make in (_list, _show, _create, _update, _delete):
        group.add_command(make(kind))
    return group


def _list(kind: Kind) -> click.Command:
    @click.command("list", help=f"List {kind.plural}, the newest first.")
    @click.option("--product", help="Only those of this product (its code).")
    @limit_option
    @connected
    def list_(session: Session, product: str | None, limit: int | None) -> None:
        session.out.items(session.api.every(kind.path, limit, product=product), kind.columns)

    if kind is PRODUCT:
        list_.params = [param for param in list_.params if param.name != "product"]
        _without_product(list_)
    return list_


def _without_product(command: click.Command) -> None:
    """Products are not of a product: the callback is given none."""
    callback = command.callback
    assert callback is not None
    command.callback = lambda **values: callback(product=None, **values)


def _show(kind: Kind) -> click.Command:
    @click.command("show", help=f"Show one {kind.singular} ({kind.reference}).")
    @click.argument("which", metavar=kind.singular.upper())
    @connected
    def show(session: Session, which: str) -> None:
        session.out.item(kind.find(session.api, which))

    return show


def _create(kind: Kind) -> click.Command:
    @click.command("create", help=f"Make a {kind.singular}.")
    @fields.options(kind.fields, required=kind.required)
    @request_id_option
    @connected
    def create(session: Session, request_id: str | None, **values: Any) -> None:
        session.out.item(session.api.post(kind.path, fields.body_of(values), request_id))

    return create


def _update(kind: Kind) -> click.Command:
    @click.command("update", help=f"Change what is named of a {kind.singular} ({kind.reference}).")
    @click.argument("which", metavar=kind.singular.upper())
    @fields.options(kind.fields)
    @connected
    def update(session: Session, which: str, **values: Any) -> None:
        found = kind.find(session.api, which)
        session.out.item(session.api.patch(f"{kind.path}/{part(found['id'])}", fields.body_of(values)))

    return update


def _delete(kind: Kind) -> click.Command:
    @click.command("delete", help=f"Delete a {kind.singular} for good ({kind.reference}).")
    @click.argument("which", metavar=kind.singular.upper())
    @yes_option
    @connected
    def delete(session: Session, which: str, yes: bool) -> None:
        found = kind.find(session.api, which)
        confirm(yes, f"Delete the {kind.singular} {found['name']} for good?")
        session.api.delete(f"{kind.path}/{part(found['id'])}")
        session.out.done("Deleted.")

    return delete
