"""`flask events`: the log of everything that was accepted, printed while it is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click

from api.admin.csv_text import to_csv
from api.admin.event_log import COLUMNS, FILTERS
from api.cli.context import open_context
from api.cli.output import as_json, cell
from api.cli.resources import chosen, filter_options, license_id_of, limit_option

#: What people look at, and how wide it usually is: a log is too long to be measured first.
_SHOWN = (("seq", 8), ("occurred_at", 20), ("type", 20), ("mode", 8), ("node", 16), ("license_id", 36), ("code", 0))

Events = Iterable[dict[str, Any]]


@click.group("events")
def events() -> None:
    """The event log."""


@events.command("list")
@filter_options(tuple(FILTERS))
@limit_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for a spreadsheet.")
@as_json
def list_(limit: int | None, as_csv: bool, as_json: bool, **given: str | None) -> None:
    """List events: for people the newest first, as CSV and JSON in the order of the log."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    with open_context() as context:
        resources, wanted = context.resources, chosen(given)
        if "license" in wanted:
            wanted["license"] = license_id_of(resources, wanted["license"])
        found = islice((resources.events if as_csv or as_json else resources.newest_events)(wanted), limit)
        for text in to_csv(COLUMNS, found) if as_csv else _json(found) if as_json else _table(found):
            click.echo(text, nl=False)


def _table(events: Events) -> Iterator[str]:
    yield _line({name: name for name, _ in _SHOWN})
    for event in events:
        yield _line({"code": event["data"].get("code"), **event})


def _line(event: dict[str, Any]) -> str:
    return "  ".join(cell(event[name]).ljust(width) for name, width in _SHOWN).rstrip() + "\n"


def _json(events: Events) -> Iterator[str]:
    before = "["
    for event in events:
        yield f"{before}\n  {json.dumps(event, ensure_ascii=False)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"
