"""`import` and `export`: licenses from another system's file, and all of them into one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from license_admin import bulk, files, lookup
from license_admin.session import Session, connected

_FORMATS = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


@click.command("import")
@click.argument("file")
@click.option("--policy", help="The policy (its id or name) of rows that name none.")
@connected
def import_(session: Session, file: str, policy: str | None) -> None:
    """Take licenses from a CSV FILE (- for standard input): all of its rows, or none when one is bad.

    The first line names the columns: policy (an id) and key, and any of name, email, expires_at, max_machines,
    max_uses, entitlements (a;b), metadata (JSON), external_ref, status, uses, created_at. Keys are kept as hashes only.
    A run that was cut off may be repeated as it was within a day.
    """
    raw = files.read_bytes(file)
    id = None if policy is None else lookup.policy_of(session.api, policy)["id"]
    taken = bulk.imported(session, raw, id)
    session.out.done(f"{taken} licenses were imported.", {"imported": taken})


@click.command("export")
@click.option("--out", "file", type=click.Path(path_type=Path), help="Write to this new file instead of the terminal.")
@click.option(
    "--format", "form", type=click.Choice(list(_FORMATS)), default="csv", help="csv, or a JSON line for each."
)
@click.option("--with-hashes", is_flag=True, help="With the hashes of the keys, for an import into another ledger.")
@connected
def export(session: Session, file: Path | None, form: str, with_hashes: bool) -> None:
    """Write all licenses. It holds no keys: the servers have only their hashes and last four characters."""
    hashes = "true" if with_hashes else None
    download_to(session, file, "/v1/licenses/export", _FORMATS[form], hashes=hashes)


def download_to(session: Session, file: Path | None, path: str, accept: str, **query: Any) -> None:
    """Writes a long answer to a new file, or to the terminal, once it is whole."""
    with files.spool() as spool:
        if file is None:
            session.api.download(path, accept, spool, **query)
            sys.stdout.flush()
            spool.copy_to(_stdout)
            return
        with files.new_private_file(file) as opened:
            try:
                session.api.download(path, accept, spool, **query)
                spool.copy_to(lambda chunk: os.write(opened.fileno(), chunk))
                files.flush(opened)
            except BaseException:
                opened.close()
                file.unlink()
                raise
    session.out.done(f"Written to {file}.", {"file": str(file)})


def _stdout(chunk: bytes) -> None:
    """Bytes as they are where the stream takes such: a file that is redirected to is in UTF-8 on Windows too."""
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:
        sys.stdout.write(chunk.decode("utf-8", "replace"))
    else:
        raw.write(chunk)
        raw.flush()
