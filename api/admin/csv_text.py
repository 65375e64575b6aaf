"""Rows as CSV for a spreadsheet, which must not take what a customer wrote for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

#: A spreadsheet reads a cell that begins so as a formula, or drops the character and looks again.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CHUNK = 500
#: Its quotation mark is never closed: a strict reader refuses the file, a lenient one shows a last row that says it.
BROKEN_OFF = '"INCOMPLETE: this file broke off here, and more was to come. Ask for it again.\n'
#: The same in a file of which each line is an object; no row has this member.
NDJSON_BROKEN_OFF = '{"incomplete": "this file broke off here, and more was to come. Ask for it again."}\n'


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The head and the rows, some hundred lines at a time. Lists and objects become JSON, None an empty cell."""
    yield _lines([columns])
    remaining = iter(rows)
    while chunk := list(islice(remaining, _CHUNK)):
        yield _lines([[_cell(row[name]) for name in columns] for row in chunk])


def marked_if_broken(text: Iterable[str], mark: str = BROKEN_OFF) -> Iterator[str]:
    """`text`, ended by `mark` where it fails; what went wrong is raised after that.

    A server that has begun an answer may end it as if it were whole (Granian does): then only this tells.
    """
    try:
        yield from text
    except Exception:
        yield mark
        raise


def guarded(text: str) -> str:
    """`text`, behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return guarded(value)
    return msgspec.json.encode(value).decode()


def _lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
