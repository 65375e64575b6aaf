"""Rows of CSV files as spreadsheets write them, and as they read them without taking text for a formula."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from license_admin.errors import Misused

#: What an import takes of a license.
COLUMNS = (
    "policy", "key", "name", "email", "expires_at", "max_machines", "max_uses", "entitlements", "metadata",
    "external_ref", "status", "uses", "created_at", "key_hint", "key_hash",
)  # fmt: skip
_SEPARATORS = (",", ";", "\t")
#: A spreadsheet reads a cell that begins so as a formula; the servers write it behind an apostrophe.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, and the line it ends on."""

    line: int
    cells: dict[str, str]


def read(raw: bytes) -> list[Row]:
    """The rows: UTF-8 with or without a mark, any line ends, `,` `;` or tab. Raises `Misused`, naming bad lines."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Misused(f"line {line}: the file is not UTF-8; save it as CSV UTF-8") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=head.count), strict=True)
    try:
        columns = _columns(next(reader, []))
        found = [(reader.line_num, cells) for cells in reader if any(cells)]
    except csv.Error as error:
        raise Misused(f"line {reader.line_num}: {error}") from error
    faults = [
        f"line {line}: has {len(cells)} cells, and the first line has {len(columns)}"
        for line, cells in found
        if len(cells) != len(columns)
    ]
    if faults:
        raise Misused("\n".join(["nothing was imported:", *faults]))
    return [Row(line, {name: cell for name, cell in zip(columns, cells, strict=True) if cell}) for line, cells in found]


def lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, head: bool) -> str:
    """Lines of CSV. `head`: the first one names the columns."""
    text = io.StringIO()
    writer = csv.writer(text)
    if head:
        writer.writerow(columns)
    writer.writerows([[_cell(row.get(name)) for name in columns] for row in rows])
    return text.getvalue()


def unguarded(text: str) -> str:
    """The cell without the apostrophe that keeps a spreadsheet from calculating."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _columns(head: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in head]
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or not columns:
        raise Misused(f"line 1: these are no columns of a license: {', '.join(unknown) or 'it is empty'}")
    if len(set(columns)) < len(columns):
        raise Misused("line 1: a column is named twice")
    return columns


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if value.startswith(_FORMULA) else value
