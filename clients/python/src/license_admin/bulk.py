"""Licenses by the hundred: batches whose keys go to a file as they are made, and imports of what others sold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from license_admin import csv_rows, files
from license_admin.api import checked_request_id, encoded
from license_admin.errors import AdminError, Refused
from license_admin.session import Session
from license_client.license_key import canonical_key

#: What the servers make in one call.
_AT_ONCE = 500
#: What the servers take in one call: 64 KiB, and so many rows.
_BODY, _ROWS = 60_000, 1_000
_CREATED = ("id", "key", "policy", "name", "email", "expires_at")

Json = dict[str, Any]


class Rejected(AdminError):
    """Rows of a file cannot be taken. `faults`: `line`, `field` and `detail` of each."""

    exit_status = 1

    def __init__(self, faults: Sequence[Json]) -> None:
        listed = [f"line {fault['line']}: {fault['field']}: {fault['detail']}" for fault in faults]
        super().__init__("\n".join(["nothing was imported:", *listed]))
        self.faults = list(faults)

    def members(self) -> Json:
        return {"code": "MALFORMED", "detail": "nothing was imported", "rows": self.faults}


class Incomplete(AdminError):
    """A batch ended before its end; what was made is in the file."""

    exit_status = 1

    def __init__(self, made: int, count: int, file: Path, request_id: str, why: AdminError) -> None:
        super().__init__(
            f"{made} of {count} licenses were made and are in {file}: {why}\nTo have all of them, without making any "
            f"twice: the same command with --request-id {request_id} and a new file"
        )
        self._members = {"made": made, "count": count, "file": str(file), "request_id": request_id}

    def members(self) -> Json:
        return {"code": "INCOMPLETE", "detail": str(self), **self._members}


def created(session: Session, body: Mapping[str, Any], count: int, request_id: str | None) -> list[Json]:
    """`count` licenses with their keys."""
    return [license for batch in _batches(session, body, count, checked_request_id(request_id)) for license in batch]


def created_to(session: Session, body: Mapping[str, Any], count: int, file: Path, request_id: str | None) -> int:
    """Makes `count` licenses and writes each batch's keys to a new file before the next is made; gives their number.

    Raises `Incomplete` where some were made and not all.
    """
    made, id = 0, checked_request_id(request_id)
    with files.new_private_file(file) as opened:
        try:
            for batch in _batches(session, body, count, id):
                opened.write(csv_rows.lines(batch, _CREATED, head=made == 0))
                files.flush(opened)
                made += len(batch)
        except AdminError as error:
            if made:
                raise Incomplete(made, count, file, id, error) from error
            opened.close()
            file.unlink()
            raise
    return made


def _batches(session: Session, body: Mapping[str, Any], count: int, request_id: str) -> Iterator[list[Json]]:
    with session.out.progress("Making licenses", count) as bar:
        for number, start in enumerate(range(0, count, _AT_ONCE)):
            size = min(_AT_ONCE, count - start)
            # Each batch has an id of its own, made from the one of the whole: a repeated command repeats them all.
            id = request_id if count <= _AT_ONCE else hashlib.sha256(f"{request_id} {number}".encode()).hexdigest()
            yield session.api.post("/v1/licenses", {**body, "count": size}, id)["items"]
            if bar is not None:
                bar.advance(bar.task_ids[0], size)


def imported(session: Session, raw: bytes, policy: str | None) -> int:
    """Takes the rows of a CSV file, all or none; gives their number. `policy`: the id for rows that name none.

    Every part of the file is checked before the first is taken. A part that was taken already, by a run that was cut
    off, is not taken twice. Raises `Rejected`.
    """
    rows = csv_rows.read(raw)
    if policy is not None:
        rows = [csv_rows.Row(row.line, {"policy": policy} | row.cells) for row in rows]
    parts, faults = list(_parts(rows)), _repeated(rows)
    with session.out.progress("Checking rows", len(rows)) as bar:
        for chunk in parts:
            faults += _checked(session, chunk)
            if bar is not None:
                bar.advance(bar.task_ids[0], len(chunk))
    if faults:
        unique = {(fault["line"], fault["field"]): fault for fault in faults}
        raise Rejected(sorted(unique.values(), key=lambda fault: fault["line"]))
    with session.out.progress("Importing", len(rows)) as bar:
        for chunk in parts:
            body = _body(chunk)
            session.api.post("/v1/licenses/import", body, _id_of(body))
            if bar is not None:
                bar.advance(bar.task_ids[0], len(chunk))
    return len(rows)


def _checked(session: Session, chunk: Sequence[csv_rows.Row]) -> list[Json]:
    """What the servers have against these rows, by line."""
    body = _body(chunk)
    try:
        session.api.post("/v1/licenses/import", {**body, "check": True}, _id_of(body))
    except Refused as refused:
        if "rows" not in refused.problem:
            raise
        return [
            {"line": chunk[bad["row"] - 1].line, "field": bad["field"], "detail": bad["detail"]}
            for bad in refused.problem["rows"]
        ]
    return []


def _body(chunk: Sequence[csv_rows.Row]) -> Json:
    return {"rows": [row.cells for row in chunk]}


def _id_of(body: Json) -> str:
    """Of what is sent: the same rows again are the same call again."""
    return hashlib.sha256(encoded(body)).hexdigest()


def _parts(rows: Sequence[csv_rows.Row]) -> Iterator[list[csv_rows.Row]]:
    """The rows in parts, each of which one call takes."""
    part: list[csv_rows.Row] = []
    size = 0
    for row in rows:
        length = len(encoded(row.cells)) + 1
        if part and (size + length > _BODY or len(part) == _ROWS):
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part


def _repeated(rows: Sequence[csv_rows.Row]) -> list[Json]:
    """Keys and references that stand in the file twice: the servers see a part of it at a time."""
    faults = []
    for field in ("key", "key_hash", "external_ref"):
        seen: set[str] = set()
        for row in rows:
            cell = row.cells.get(field)
            if cell is None:
                continue
            value = canonical_key(csv_rows.unguarded(cell)) if field == "key" else cell
            if value in seen:
                name = "key" if field == "key_hash" else field
                faults.append({"line": row.line, "field": name, "detail": "stands in an earlier row too"})
            seen.add(value)
    return faults
