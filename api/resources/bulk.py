"""Licenses by the hundred: made at once, taken from a file, given out to one. One transaction and one event each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, insert, select

from api.answers import timestamp
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.ledger.tables import licenses
from api.licensing.model import DAY, Status
from api.problems import Malformed
from api.resources.csv_text import unguarded
from api.resources.license_rows import (
    columns_of,
    hold_policy,
    key_columns,
    new_key,
    new_row,
    policy_in,
    resource,
)
from api.resources.rows import plain
from api.resources.schemas import PRINTABLE, LicenseBody, Moment, parse, require
from api.shared_state import SharedState

#: The log's head is locked while the rows get their place in the log: some 0.2 s for this many.
MAX_AT_ONCE = 10_000
_CHUNK = 500

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
    uses: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    created_at: Moment | UnsetType = UNSET
    key_hash: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")] | UnsetType = UNSET
    key_hint: Annotated[str, Meta(min_length=1, max_length=4, pattern=PRINTABLE)] | UnsetType = UNSET


class BadRow(Exception):
    """`row` (1 for the first) cannot be taken, and so nothing was: `field` and `detail` say why.

    `others`: the other bad rows that were found with it, in their order.
    """

    others: tuple[BadRow, ...] = ()

    def __init__(self, row: int, field: str, detail: str) -> None:
        super().__init__(f"row {row}: {field}: {detail}")
        self.row = row
        self.field = field
        self.detail = detail


class Bulk:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal, state: SharedState) -> None:
        self._journal = journal
        self._state = state

    def create_many(self, body: LicenseBody, count: int) -> list[dict[str, Any]]:
        given = require(body)
        for name in ("key", "external_ref"):
            if given.get(name) is not None:
                raise Malformed(name, "belongs to one license only")
        if not 1 <= count <= MAX_AT_ONCE:
            raise Malformed("count", f"must be 1 to {MAX_AT_ONCE}")
        with self._journal.change() as change:
            policy = hold_policy(change.connection, given["policy"])
            keys, now = [new_key() for _ in range(count)], self._journal.now()
            shared = columns_of(given)
            rows = [new_row(policy_in(policy), now) | shared | key_columns(key) for key in keys]
            change.connection.execute(insert(licenses), rows)
            event = self._journal.event("license.created", policy=given["policy"], count=count)
            change.commit(event, {licenses: [row["id"] for row in rows]})
        self._state.keys_changed()
        return [resource(row | policy, key) for row, key in zip(rows, keys, strict=True)]

    def import_licenses(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """The number of licenses taken. Raises `BadRow`, and then none was."""
        taken = _all_parsed(rows, self._journal.now())
        _refuse_repeated(taken)
        if not taken:
            return 0
        try:
            self._insert(taken)
        except LedgerRefused as error:
            self._refuse_taken(taken)
            raise error
        self._state.keys_changed()
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

    def _insert(self, taken: list[dict[str, Any]]) -> None:
        with self._journal.change() as change:
            policies = _policies(change.connection, taken)
            now = self._journal.now()
            rows = [_imported(given, policies[given["policy"]], now) for given in taken]
            change.connection.execute(insert(licenses), rows)
            event = self._journal.event("license.imported", count=len(rows))
            change.commit(event, {licenses: [row["id"] for row in rows]})

    def _refuse_taken(self, taken: list[dict[str, Any]]) -> None:
        """Raises `BadRow` for the rows whose key or `external_ref` the ledger already has."""
        faults = []
        for start in range(0, len(taken), _CHUNK):
            chunk = taken[start : start + _CHUNK]
            for field, column in (("key", licenses.c.key_hash), ("external_ref", licenses.c.external_ref)):
                values = [_unique(given, field) for given in chunk]
                with self._journal.reading(5.0) as connection:
                    held = set(connection.scalars(select(column).where(column.in_([v for v in values if v]))))
                for number, value in enumerate(values, start=start + 1):
                    if value in held:
                        faults.append(BadRow(number, field, "is another license's"))
        _refuse(faults)


def _refuse(faults: list[BadRow]) -> None:
    """Raises the first of `faults`, in the order of the rows, with the others in it."""
    if faults:
        first, *others = sorted(faults, key=lambda fault: fault.row)
        first.others = tuple(others)
        raise first


def _all_parsed(rows: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    taken, faults = [], []
    for number, row in enumerate(rows, start=1):
        if number > MAX_AT_ONCE:
            raise BadRow(number, "$", f"is one too many: at most {MAX_AT_ONCE} at once")
        try:
            taken.append(_parsed(number, row, now))
        except BadRow as fault:
            faults.append(fault)
    _refuse(faults)
    return taken


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


def _refuse_repeated(taken: list[dict[str, Any]]) -> None:
    faults = []
    for field in ("key", "external_ref"):
        seen: set[str] = set()
        for number, given in enumerate(taken, start=1):
            value = _unique(given, field)
            if value in seen:
                faults.append(BadRow(number, field, "stands in an earlier row too"))
            elif value is not None:
                seen.add(value)
    _refuse(faults)


def _unique(given: Mapping[str, Any], field: str) -> str | None:
    """What the ledger takes once only: the key's hash, or the `external_ref` where there is one."""
    found = given.get("external_ref") if field == "external_ref" else _key_columns(given)["key_hash"]
    return None if found is None else str(found)


def _key_columns(given: Mapping[str, Any]) -> dict[str, str]:
    key: str | None = given.get("key")
    return {name: given[name] for name in ("key_hash", "key_hint")} if key is None else key_columns(key)


def _policies(connection: Connection, taken: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The policies that the rows name, by id. Raises `BadRow` for the rows whose policy there is not."""
    found, faults = {}, []
    for id in sorted({given["policy"] for given in taken}):
        try:
            found[id] = hold_policy(connection, id)
        except Malformed:
            rows = [number for number, given in enumerate(taken, start=1) if given["policy"] == id]
            faults += [BadRow(number, "policy", "there is no policy with this id") for number in rows]
    _refuse(faults)
    return found


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
