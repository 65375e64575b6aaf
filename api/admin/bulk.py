"""Licenses by the hundred: made at once, taken from a file, given out to one. One transaction and one event each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Column, insert, select

from api.admin.csv_text import unguarded
from api.admin.idempotency import EVERY_TIME, Effect
from api.admin.license_rows import columns_of, hold_policy, key_columns, new_row, policy_in, resource
from api.admin.rows import plain
from api.admin.schemas import PRINTABLE, LicenseBody, Moment, parse, require
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.ledger.tables import licenses, policies
from api.licensing.model import DAY, MAX_USES, Status
from api.node.change_marks import ChangeMarks
from api.node.clock import timestamp
from api.problems import Malformed, Problem

#: The log's head is locked while the rows get their place in the log: some 0.2 s for this many.
MAX_AT_ONCE = 10_000
_CHUNK = 500

#: The rows of an import as they were read, by their number (1 for the first).
_Taken = dict[int, dict[str, Any]]

#: The columns of an export; an import takes these and `key`.
COLUMNS = (
    "policy", "status", "name", "email", "expires_at", "max_machines", "max_uses", "entitlements", "metadata",
    "external_ref", "uses", "created_at", "key_hint", "key_hash",
)  # fmt: skip


class ImportedLicense(LicenseBody, kw_only=True):
    """One row of an import: a new license with its existing `key`, or an exported one with `key_hash` and `key_hint`.

    Cells of text are read as what they stand for; an empty one is as good as none. `entitlements`: a;b or JSON.
    """

    status: Status | UnsetType = UNSET
    uses: Annotated[int, Meta(ge=0, le=MAX_USES)] | UnsetType = UNSET
    created_at: Moment | UnsetType = UNSET
    key_hash: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")] | UnsetType = UNSET
    key_hint: Annotated[str, Meta(min_length=1, max_length=4, pattern=PRINTABLE)] | UnsetType = UNSET


class BadRow(Problem):
    """`row` (1 for the first) cannot be taken, and so nothing was: `field` and `reason` say why.

    `others`: the other bad rows that were found with it, in their order. The problem names them all as `rows`.
    """

    def __init__(self, row: int, field: str, reason: str, others: tuple[BadRow, ...] = ()) -> None:
        super().__init__("MALFORMED", f"row {row}: {field}: {reason}", field="rows")
        self.row = row
        self.field = field
        self.reason = reason
        self.others = others
        self.members["rows"] = [{"row": bad.row, "field": bad.field, "detail": bad.reason} for bad in (self, *others)]


class Bulk:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal, changes: ChangeMarks) -> None:
        self._journal = journal
        self._changes = changes

    def create_many(self, body: LicenseBody, count: int, effect: Effect = EVERY_TIME) -> list[dict[str, Any]]:
        given = require(body)
        for name in ("key", "external_ref"):
            if given.get(name) is not None:
                raise Malformed(name, "belongs to one license only")
        if not 1 <= count <= MAX_AT_ONCE:
            raise Malformed("count", f"must be 1 to {MAX_AT_ONCE}")
        with self._journal.change() as change:
            policy = hold_policy(change.connection, given["policy"])
            keys, now = [effect.license_key(number) for number in range(count)], self._journal.now()
            shared = columns_of(given)
            rows = [new_row(policy_in(policy), now) | shared | key_columns(key) for key in keys]
            change.connection.execute(insert(licenses), rows)
            event = self._journal.event("license.created", policy=given["policy"], count=count)
            made = [resource(row | policy, key) for row, key in zip(rows, keys, strict=True)]
            change.commit(event, {licenses: [row["id"] for row in rows]}, effect.record({"items": made}, now))
        self._changes.keys_changed()
        return made

    def import_licenses(
        self, rows: Iterable[Mapping[str, Any]], effect: Effect = EVERY_TIME, *, check: bool = False
    ) -> int:
        """The number of licenses taken, or that could be (`check`). Raises `BadRow`, and then none was."""
        taken, faults = _all_parsed(rows, self._journal.now())
        faults += _repeated(taken)
        if faults or check:
            self._refuse(taken, faults)
        if check or not taken:
            return len(taken)
        try:
            self._insert(list(taken.values()), effect)
        except (LedgerRefused, Malformed) as error:
            self._refuse(taken, [])
            raise error
        self._changes.keys_changed()
        return len(taken)

    def export_licenses(self) -> Iterator[dict[str, Any]]:
        query, after = select(licenses).order_by(licenses.c.id).limit(_CHUNK), ""
        while True:
            with self._journal.reading(5.0) as connection:
                rows = [plain(row) for row in connection.execute(query.where(licenses.c.id > after)).mappings()]
            yield from map(_exported, rows)
            if len(rows) < _CHUNK:
                return
            after = rows[-1]["id"]

    def _insert(self, taken: list[dict[str, Any]], effect: Effect) -> None:
        with self._journal.change() as change:
            held = {id: hold_policy(change.connection, id) for id in sorted({given["policy"] for given in taken})}
            now = self._journal.now()
            rows = [_imported(given, held[given["policy"]], now) for given in taken]
            change.connection.execute(insert(licenses), rows)
            event = self._journal.event("license.imported", count=len(rows))
            record = effect.record(imported(len(rows)), now)
            change.commit(event, {licenses: [row["id"] for row in rows]}, record)

    def _refuse(self, taken: _Taken, faults: list[BadRow]) -> None:
        """Raises the first of `faults` and of what the ledger has against `taken`, by row, with the others in it."""
        with self._journal.reading(5.0) as connection:
            known = set(connection.scalars(select(policies.c.id)))
        faults += [
            BadRow(number, "policy", "there is no policy with this id")
            for number, given in taken.items()
            if given["policy"] not in known
        ]
        for field, column in (("key", licenses.c.key_hash), ("external_ref", licenses.c.external_ref)):
            values = {number: _unique(given, field) for number, given in taken.items()}
            held = self._held(column, [value for value in values.values() if value is not None])
            faults += [
                BadRow(number, field, "is another license's") for number, value in values.items() if value in held
            ]
        if faults:
            first, *others = sorted(faults, key=lambda fault: fault.row)
            raise BadRow(first.row, first.field, first.reason, tuple(others))

    def _held(self, column: Column[Any], values: list[str]) -> set[str]:
        """Those of `values` that a license has in `column`."""
        held: set[str] = set()
        for start in range(0, len(values), _CHUNK):
            with self._journal.reading(5.0) as connection:
                held |= set(connection.scalars(select(column).where(column.in_(values[start : start + _CHUNK]))))
        return held


def imported(count: int, *, check: bool = False) -> dict[str, Any]:
    """How an import of so many rows is answered."""
    return {"rows": count, "imported": not check}


def _all_parsed(rows: Iterable[Mapping[str, Any]], now: float) -> tuple[_Taken, list[BadRow]]:
    taken, faults = {}, []
    for number, row in enumerate(rows, start=1):
        if number > MAX_AT_ONCE:
            raise BadRow(number, "$", f"is one too many: at most {MAX_AT_ONCE} at once")
        try:
            taken[number] = _parsed(number, row, now)
        except BadRow as fault:
            faults.append(fault)
    return taken, faults


def _parsed(number: int, row: Mapping[str, Any], now: float) -> dict[str, Any]:
    try:
        cells = {str(name): _typed(name, cell) for name, cell in row.items() if cell not in (None, "")}
        given = require(parse(ImportedLicense, cells))
        if ("key" in given) == ("key_hash" in given and "key_hint" in given):
            raise Malformed("key", "is required, or key_hash and key_hint in its place")
        if "created_at" in given and given["created_at"].timestamp() > now + DAY:
            raise Malformed("created_at", "lies in the future")
    except Malformed as error:
        raise BadRow(number, error.members["field"], error.detail.partition(": ")[2]) from error
    return given


def _typed(name: str, cell: Any) -> Any:
    """What a cell of text stands for. Raises `Malformed`."""
    if not isinstance(cell, str):
        return cell
    text = unguarded(cell)
    try:
        if name in ("max_machines", "max_uses", "uses"):
            return int(text)
        if name == "metadata" or (name == "entitlements" and text.startswith("[")):
            return msgspec.json.decode(text)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise Malformed(name, "is not a whole number" if isinstance(error, ValueError) else "is not JSON") from error
    return [part.strip() for part in text.split(";") if part.strip()] if name == "entitlements" else text


def _repeated(taken: _Taken) -> list[BadRow]:
    faults = []
    for field in ("key", "external_ref"):
        seen: set[str] = set()
        for number, given in taken.items():
            value = _unique(given, field)
            if value in seen:
                faults.append(BadRow(number, field, "stands in an earlier row too"))
            elif value is not None:
                seen.add(value)
    return faults


def _unique(given: Mapping[str, Any], field: str) -> str | None:
    """What the ledger takes once only: the key's hash, or the `external_ref` where there is one."""
    found = given.get("external_ref") if field == "external_ref" else _key_columns(given)["key_hash"]
    return None if found is None else str(found)


def _key_columns(given: Mapping[str, Any]) -> dict[str, str]:
    key: str | None = given.get("key")
    return {name: given[name] for name in ("key_hash", "key_hint")} if key is None else key_columns(key)


def _imported(given: Mapping[str, Any], policy: Mapping[str, Any], now: float) -> dict[str, Any]:
    created_at = given["created_at"].timestamp() if "created_at" in given else now
    own = {name: given[name] for name in ("status", "uses") if name in given}
    row = new_row(policy_in(policy), created_at) | columns_of(given)
    return row | own | _key_columns(given) | {"created_at": created_at}


def _exported(row: Mapping[str, Any]) -> dict[str, Any]:
    own, shown = row["entitlements_json"], {name: row.get(name) for name in COLUMNS}
    return shown | {
        "expires_at": timestamp(row["expires_at"]),
        "created_at": timestamp(row["created_at"]),
        "entitlements": None if own is None else msgspec.json.decode(own),
        "metadata": msgspec.json.decode(row["metadata_json"]),
    }
