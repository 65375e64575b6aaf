"""The commands that products, policies and licenses have in common: create, list, show, update, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from api.admin.kinds import Kind
from api.admin.pages import MAX_LIMIT
from api.admin.schemas import BODIES
from api.admin.store import Resources
from api.cli.context import open_context
from api.cli.options import F, body_of, body_options
from api.cli.output import as_json, show, show_list

limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")


def create_command(kind: Kind) -> click.Command:
    """`create`, with an option for every field."""
    body = BODIES[kind]

    @click.command("create", help=f"Make a {kind}.")
    @body_options(body, required=body.REQUIRED)
    @as_json
    def create(as_json: bool, **values: Any) -> None:
        with open_context() as context:
            show(context.resources.create(kind, body_of(values)), as_json)

    return create


def list_command(kind: Kind, columns: Sequence[str], filters: Sequence[str]) -> click.Command:
    """`list`, with an option for every filter."""

    @click.command("list", help=f"List {kind.plural}, the newest first.")
    @filter_options(filters)
    @limit_option
    @as_json
    def list_(as_json: bool, limit: int | None, **given: str | None) -> None:
        with open_context() as context:
            found = list(every(context.resources, kind, chosen(given), limit))
        show_list(found, columns, as_json)

    return list_


def show_command(kind: Kind) -> click.Command:
    """`show ID`."""

    @click.command("show", help=f"Show one {kind}.")
    @click.argument("id")
    @as_json
    def show_(id: str, as_json: bool) -> None:
        with open_context() as context:
            show(context.resources.get(kind, id), as_json)

    return show_


def update_command(kind: Kind, skip: Sequence[str] = ()) -> click.Command:
    """`update ID`, with an option for every field but those in `skip`; what is not named stays as it was."""

    @click.command("update", help=f"Change what is named of a {kind}.")
    @click.argument("id")
    @body_options(BODIES[kind], skip=skip)
    @as_json
    def update(id: str, as_json: bool, **values: Any) -> None:
        with open_context() as context:
            show(context.resources.update(kind, id, body_of(values)), as_json)

    return update


def delete_command(kind: Kind) -> click.Command:
    """`delete ID`, which asks first."""

    @click.command("delete", help=f"Delete a {kind} for good.")
    @click.argument("id")
    @click.confirmation_option(prompt=f"Delete this {kind} for good?")
    def delete(id: str) -> None:
        with open_context() as context:
            context.resources.delete(kind, id)
        click.echo("Deleted.")

    return delete


def filter_options(names: Sequence[str]) -> Callable[[F], F]:
    """A decorator that gives a command an option for each filter."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = click.option(f"--{name.replace('_', '-')}", name)(command)
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
