"""Licenses in files: the keys of many made at once, an export, and the import of what another system sold."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
import msgspec

from api.admin.bulk import COLUMNS, BadRow, ImportedLicense
from api.admin.csv_text import to_csv
from api.admin.kinds import Kind
from api.admin.store import Resources
from api.cli.context import open_context

_CREATED = ("id", "key", "policy", "name", "email", "expires_at")
_HASHED = ("key_hash",)
_SEPARATORS = (",", ";", "\t")


class Row(msgspec.Struct, frozen=True):
    """A row of a file that is imported, and the line it ends on."""

    line: int
    cells: dict[str, str]


@click.command("import")
@click.argument("file", type=click.File("rb"))
def import_(file: BinaryIO) -> None:
    """Take licenses from a CSV FILE (- for standard input): all of its rows, or none when one is bad.

    The first line names the columns: policy and key, and any of name, email, expires_at, max_machines, max_uses,
    entitlements (a;b), metadata (JSON), external_ref, status, uses, created_at. Keys are kept as hashes only.
    """
    rows = read_rows(file.read())
    with open_context() as context:
        try:
            taken = context.resources.import_licenses([row.cells for row in rows])
        except BadRow as error:
            faults = [(rows[bad.row - 1].line, bad) for bad in (error, *error.others)]
            raise _refused([f"line {line}: {bad.field}: {bad.reason}" for line, bad in faults]) from error
    click.echo(f"{taken} licenses were imported.")


@click.command("export")
@click.option("--csv", "file", type=click.Path(path_type=Path), help="Write to this new file (mode 0600).")
@click.option("--with-hashes", is_flag=True, help="With the hashes of the keys, for an import into another ledger.")
def export(file: Path | None, with_hashes: bool) -> None:
    """Write all licenses as CSV. It holds no keys: the ledger has only their hashes and last four characters."""
    columns = [name for name in COLUMNS if with_hashes or name not in _HASHED]
    with open_context() as context:
        lines = to_csv(columns, context.resources.export_licenses())
        if file is None:
            for text in lines:
                click.echo(text, nl=False)
            return
        with _new_private_file(file) as opened:
            try:
                opened.writelines(lines)
            except BaseException:
                file.unlink()  # half an export looks like a whole one
                raise
    click.echo(f"Written to {file}, readable by you alone.")


def write_created(resources: Resources, body: Mapping[str, Any], count: int, file: Path) -> None:
    """Makes `count` licenses and writes their keys to a new file, which is there before the first of them is made."""
    with _new_private_file(file) as opened:
        try:
            made = [resources.create(Kind.LICENSE, body)] if count == 1 else resources.create_many(body, count)
        except BaseException:
            file.unlink()
            raise
        text = "".join(to_csv(_CREATED, made))
        try:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        except OSError:
            click.echo(text, nl=False)  # the keys are nowhere else
            raise
    click.echo(f"{count} licenses were made; their keys are in {file}, readable by you alone.")


def read_rows(raw: bytes) -> list[Row]:
    """The rows of a CSV file as spreadsheets write it: UTF-8 with or without a mark, any line ends, `,` `;` or tab.

    Raises `click.ClickException` naming every line that has not the cells of the first.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise click.ClickException(f"line {line}: the file is not UTF-8; save it as CSV UTF-8") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=head.count), strict=True)
    try:
        columns = _columns(next(reader, []))
        found = [(reader.line_num, cells) for cells in reader if any(cells)]
    except csv.Error as error:
        raise click.ClickException(f"line {reader.line_num}: {error}") from error
    faults = [
        f"line {line}: has {len(cells)} cells, and the first line has {len(columns)}"
        for line, cells in found
        if len(cells) != len(columns)
    ]
    if faults:
        raise _refused(faults)
    return [Row(line, dict(zip(columns, cells, strict=True))) for line, cells in found]


@contextlib.contextmanager
def _new_private_file(path: Path) -> Iterator[TextIO]:
    """A new file with mode 0600; an older one is never written over."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{path} exists already and is left as it is; name a new file") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as opened:
        yield opened


def _columns(head: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in head]
    unknown = [name for name in columns if name not in ImportedLicense.__struct_fields__]
    if unknown or not columns:
        raise click.ClickException(f"line 1: these are no columns of a license: {', '.join(unknown) or 'it is empty'}")
    if len(set(columns)) < len(columns):
        raise click.ClickException("line 1: a column is named twice")
    return columns


def _refused(faults: list[str]) -> click.ClickException:
    return click.ClickException("\n".join(["nothing was imported:", *faults]))
