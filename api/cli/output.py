"""How the command line prints: a table or lines for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

Item = Mapping[str, Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def show(item: Item, as_json: bool) -> None:
    """One thing: a line for each member."""
    if as_json:
        _json(item)
        return
    width = max(map(len, item), default=0)
    for name, value in item.items():
        click.echo(f"{name.ljust(width)}  {cell(value)}")


def show_list(items: Sequence[Item], columns: Sequence[str], as_json: bool) -> None:
    """Things of one kind: a table of `columns`; as JSON a list with all members."""
    if as_json:
        _json(list(items))
        return
    rows = [list(columns), *([cell(item.get(column)) for column in columns] for item in items)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """A value as people read it: a dash for null, yes or no, texts and named values joined by commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_within, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}={_within(one)}" for name, one in value.items()) or "-"
    return str(value)


def _within(value: Any) -> str:
    """A value that stands within another one."""
    return f"({cell(value)})" if isinstance(value, list | tuple | dict) and value else cell(value)


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
