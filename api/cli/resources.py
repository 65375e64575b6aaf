"""The commands that products, policies and licenses have in common: create, list, show, update, delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from api.admin.kinds import Kind
from api.admin.pages import MAX_LIMIT
from api.admin.schemas import BODIES
from api.admin.store import Resources
from api.cli.context import open_context
from api.cli.help import FILTERS
from api.cli.options import F, body_of, body_options
from api.cli.output import Item, as_json, show, show_list

#: How each kind may be named where a command takes one.
WAYS = {
    Kind.PRODUCT: "NAME: its id, code or name.",
    Kind.POLICY: "NAME: its id, its name, or product/name.",
    Kind.LICENSE: "NAME: its id, key, the last four characters of the key, its e-mail address, external_ref or name.",
}
#: The fields and filters that name another resource, and the member of it that is sent.
_NAMED = {"policy": (Kind.POLICY, "id"), "product": (Kind.PRODUCT, "code")}

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")


Readable = Callable[[Item], Item]


def create_command(kind: Kind) -> click.Command:
    """`create`, with an option for every field."""
    body = BODIES[kind]

    @click.command("create", help=f"Make a {kind}.")
    @body_options(body, required=body.REQUIRED)
    @as_json
    def create(as_json: bool, **values: Any) -> None:
        with open_context() as context:
            show(context.resources.create(kind, named_in(context.resources, body_of(values))), as_json)

    return create


def list_command(
    kind: Kind, columns: Sequence[str], filters: Sequence[str], readable: Readable | None = None
) -> click.Command:
    """`list`, with an option for every filter; `readable` makes a row of each for people."""

    @click.command("list", help=f"List {kind.plural}, the newest first.")
    @filter_options(filters)
    @limit_option
    @as_json
    def list_(as_json: bool, limit: int | None, **given: str | None) -> None:
        with open_context() as context:
            wanted = named_in(context.resources, chosen(given))
            found: Sequence[Item] = list(every(context.resources, kind, wanted, limit))
        show_list(found if as_json or readable is None else list(map(readable, found)), columns, as_json)

    return list_


def show_command(kind: Kind, readable: Readable | None = None) -> click.Command:
    """`show NAME`."""

    @click.command("show", help=f"Show one {kind}. {WAYS[kind]}")
    @click.argument("name")
    @as_json
    def show_(name: str, as_json: bool) -> None:
        with open_context() as context:
            show_as(context.resources.named(kind, name), as_json, readable)

    return show_


def update_command(kind: Kind, skip: Sequence[str] = (), readable: Readable | None = None) -> click.Command:
    """`update NAME`, with an option for every field but those in `skip`; what is not named stays as it was."""

    @click.command("update", help=f"Change what is named of a {kind}. {WAYS[kind]}")
    @click.argument("which", metavar="NAME")
    @body_options(BODIES[kind], skip=skip)
    @as_json
    def update(which: str, as_json: bool, **values: Any) -> None:
        with open_context() as context:
            id = context.resources.named(kind, which)["id"]
            body = named_in(context.resources, body_of(values))
            show_as(context.resources.update(kind, id, body), as_json, readable)

    return update


def delete_command(kind: Kind) -> click.Command:
    """`delete NAME`, which says what it found and asks first."""

    @click.command("delete", help=f"Delete a {kind} for good. {WAYS[kind]}")
    @click.argument("name")
    @click.option("--yes", is_flag=True, help="Delete it without asking.")
    def delete(name: str, yes: bool) -> None:
        with open_context() as context:
            found = context.resources.named(kind, name)
            label = found.get("email") or found["name"] or found["id"]
            if not yes:
                click.confirm(f"Delete this {kind} for good: {label} ({found['id']})?", abort=True)
            context.resources.delete(kind, found["id"])
        click.echo("Deleted.")

    return delete


def show_as(item: Item, as_json: bool, readable: Readable | None) -> None:
    """Shows `item` as JSON, or to people as `readable` makes it."""
    show(item if as_json or readable is None else readable(item), as_json)


def named_in(resources: Resources, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the policy's id and the product's code in place of what names them."""
    given = dict(values)
    for name, (kind, member) in _NAMED.items():
        if isinstance(given.get(name), str):
            given[name] = resources.named(kind, given[name])[member]
    return given


def license_id_of(resources: Resources, name: str) -> str:
    """The id of the license that `name` means; an id as it is, since the log outlives the license."""
    return name if is_license_id(name) else str(resources.named(Kind.LICENSE, name)["id"])


def is_license_id(name: str) -> bool:
    """Whether `name` has the form of the ids that licenses are given."""
    return _UUID.fullmatch(name) is not None


def filter_options(names: Sequence[str]) -> Callable[[F], F]:
    """A decorator that gives a command an option for each filter."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = click.option(f"--{name.replace('_', '-')}", name, help=f"{FILTERS.get(name, '')}.")(command)
        return command

    return decorate


def chosen(given: Mapping[str, str | None]) -> dict[str, str]:
    """The filters that were given."""
    return {name: text for name, text in given.items() if text is not None}


def every(
    resources: Resources, kind: Kind, filters: Mapping[str, str], limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """All resources that match, page by page, or the first `limit` of them."""
    left, cursor = limit, None
    while left is None or left > 0:
        page = resources.page(kind, filters, MAX_LIMIT if left is None else min(left, MAX_LIMIT), cursor)
        yield from page["items"]
        cursor = page["next"]
        if cursor is None:
            return
        left = None if left is None else left - len(page["items"])
