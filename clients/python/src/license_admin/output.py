"""How commands print: tables and lines for people, JSON for programs, progress on stderr; on any console's encoding."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

#: What a table may take where nobody's window limits it: a program that reads it gets whole ids.
_UNLIMITED = 1_000

Item = Mapping[str, Any]


def fit_streams() -> None:
    """Lets stdout and stderr show what their encoding cannot (cp850, cp1252) as `?`, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


class Output:
    """Prints what commands found. `as_json`: for programs."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def item(self, item: Item) -> None:
        """One thing: a line for each member."""
        if self.as_json:
            print_json(item)
            return
        table = Table.grid(padding=(0, 2))
        for name, value in item.items():
            table.add_row(Text(name, "bold"), Text(cell(value)))
        _console().print(table)

    def items(self, items: Iterable[Item], columns: Sequence[str], title: str | None = None) -> None:
        """Things of one kind: a table of `columns`; as JSON a list with all members."""
        if self.as_json:
            print_json(list(items))
            return
        table = Table(title=title, title_justify="left", show_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for item in items:
            table.add_row(*(Text(cell(item.get(column))) for column in columns))
        _console().print(table)

    def done(self, text: str, item: Item | None = None) -> None:
        """What was done, as a sentence for people; `item` is the same for programs."""
        if self.as_json:
            print_json({"done": text} if item is None else item)
        else:
            print(text)

    def note(self, text: str) -> None:
        """A remark beside the result, on stderr."""
        print(text, file=sys.stderr)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Progress | None]:
        """A bar on stderr while a person looks on; None otherwise. Its one task has the id 0."""
        if self.as_json or not sys.stderr.isatty():
            yield None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=_console(sys.stderr), transient=True) as progress:
            progress.add_task(what, total=total)
            yield progress


def print_json(value: Any, *, file: TextIO | None = None, indent: int | None = 2) -> None:
    """JSON that is whole on any console: in UTF-8 as it is, in another encoding with escapes."""
    stream = file or sys.stdout
    is_utf8 = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, indent=indent, ensure_ascii=not is_utf8), file=stream)


def cell(value: Any) -> str:
    """A value as people read it: a dash for null, yes or no, texts joined by commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else "-"
    return str(value)


def _console(file: TextIO | None = None) -> Console:
    """On the stream of now: tests and shells exchange it."""
    stream = file or sys.stdout
    width = None if stream.isatty() else _UNLIMITED
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
