"""Rows to values: the columns a look-up gives, and the holdings made of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from api.ledger.records import LicenseRecord
from api.licensing import MOST_DEPARTED, MOST_NEVER_CAME, Holding, License, Machine, Policy


class Row(NamedTuple):
    """One query's row, in the order of a look-up's columns. `is_ours`: false where others may write the license."""

    ledger_time: float
    i: int
    license_id: str | None
    status: Any
    expires_at: float | None
    max_machines: int | None
    max_uses: int | None
    entitlements_json: str | None
    uses: int
    seats: int
    excess: int
    checked_in_at: float | None
    license_seen_at: float | None
    created_at: float
    policy_id: str | None
    product: str
    policy_name: str
    rules_json: str
    machine_id: str | None
    machine_name: str | None
    platform: str | None
    active: bool
    machine_excess: bool
    heartbeat_at: float | None
    machine_seen_at: float | None
    machine_created_at: float
    seat_at: float | None
    culled: bool
    seq: int
    arrivals: int
    never_came: int
    departed: int
    stale_json: str | None
    recorded: str | None
    recorded_at: float | None
    is_ours: bool = True


#: The columns of `Row`, for the select lists of both databases. The counts are those kept with the license: to count
#: its machines would make a decision cost more the more of them a license has, and what is behind it is a client's to
#: make. The leader proves them (`api.supervisor.duties.counts`).
COLUMNS = """
    l.id, l.status, l.expires_at, l.max_machines, l.max_uses, l.entitlements_json, l.uses, l.seats, l.excess,
    l.checked_in_at, l.last_seen_at, l.created_at, p.id, p.product, p.name, p.rules_json,
    m.id, m.name, m.platform, m.active, m.excess, m.heartbeat_at, m.last_seen_at, m.created_at,
    m.seat_at, m.culled, l.seq, {arrivals}, {never_came}, {departed}, {stale}, {recorded}
"""

#: For `never_came`: no more of them are counted than are kept.
NEVER_CAME = (
    "(SELECT count(*) FROM (SELECT 1 FROM machines s WHERE s.license_id = l.id AND s.created_at = 0 "  # noqa: S608 - our own names
    f"LIMIT {MOST_NEVER_CAME}) c)"
)

#: For `departed`, likewise: asked for a machine without a seat, the only one that such a count can keep from one.
DEPARTED = (
    "CASE WHEN m.active THEN 0 ELSE (SELECT count(*) FROM (SELECT 1 FROM machines s "  # noqa: S608 - our own names
    f"WHERE s.license_id = l.id AND NOT s.active LIMIT {MOST_DEPARTED}) d) END"
)

#: For the check lane: nothing that only a write needs.
CHECK_COLUMNS = COLUMNS.format(arrivals="0", never_came="0", departed="0", stale="NULL", recorded="NULL, NULL")

_decode = msgspec.json.Decoder().decode
_decode_stale = msgspec.json.Decoder(
    list[tuple[str, str, str | None, str | None, bool | int, float | None, float]]
).decode


@lru_cache(maxsize=4096)
def policy_of(policy_id: str, product: str, name: str, rules_json: str) -> Policy:
    return msgspec.convert({**_decode(rules_json), "id": policy_id, "product": product, "name": name}, Policy)


@lru_cache(maxsize=4096)
def _entitlements(text: str) -> tuple[str, ...]:
    return tuple(_decode(text))


def known_from(rows: Iterable[tuple[Any, ...]], fingerprints: list[str | None]) -> list[LicenseRecord]:
    """The answers to the queries whose fingerprints are given, from their rows in any order.

    `LicenseRecord.busy` where a license was to be locked and is not: what is read of it may not be written back.
    """
    known: list[LicenseRecord] = [LicenseRecord(None)] * len(fingerprints)
    for values in rows:
        row = Row(*values)
        if not row.is_ours:
            known[row.i] = LicenseRecord(None, busy=True)
            continue
        recorded = None if row.recorded is None else _decode(row.recorded)
        orphan = row.license_id if row.policy_id is None else None
        known[row.i] = LicenseRecord(
            _holding(row, fingerprints[row.i]), recorded, row.recorded_at, row.seq or 0, orphan
        )
    return known


def _holding(row: Row, fingerprint: str | None) -> Holding | None:
    # A copy may have a license and not yet its policy: then it does not know it yet.
    if row.license_id is None or row.policy_id is None:
        return None
    machine = _machine(row, row.license_id, fingerprint)
    return Holding(
        license=_license(row, row.license_id),
        seats=row.seats,
        excess=row.excess,
        arrivals=row.arrivals,
        never_came=row.never_came,
        departed=row.departed,
        machines={} if machine is None else {machine.fingerprint: machine},
        stale=() if row.stale_json is None else _stale(row.stale_json, row.license_id),
    )


def _license(row: Row, license_id: str) -> License:
    policy = policy_of(row.policy_id, row.product, row.policy_name, row.rules_json)
    own = row.entitlements_json
    return License(
        id=license_id,
        policy=policy,
        status=row.status,
        expires_at=row.expires_at,
        max_machines=policy.max_machines if row.max_machines is None else row.max_machines,
        max_uses=policy.max_uses if row.max_uses is None else row.max_uses,
        entitlements=policy.entitlements if own is None else _entitlements(own),
        uses=row.uses,
        checked_in_at=row.checked_in_at,
        created_at=row.created_at,
        last_seen_at=row.license_seen_at,
    )


def _machine(row: Row, license_id: str, fingerprint: str | None) -> Machine | None:
    if row.machine_id is None or fingerprint is None:
        return None
    return Machine(
        id=row.machine_id,
        license_id=license_id,
        fingerprint=fingerprint,
        name=row.machine_name,
        platform=row.platform,
        active=bool(row.active),
        excess=bool(row.machine_excess),
        heartbeat_at=row.heartbeat_at,
        last_seen_at=row.machine_seen_at,
        created_at=row.machine_created_at,
        seat_at=row.seat_at,
        culled=bool(row.culled),
    )


def _stale(text: str, license_id: str) -> tuple[Machine, ...]:
    return tuple(
        Machine(
            id=id,
            license_id=license_id,
            fingerprint=fingerprint,
            name=name,
            platform=platform,
            excess=bool(excess),
            last_seen_at=seen_at,
            created_at=created_at,
        )
        for id, fingerprint, name, platform, excess, seen_at, created_at in _decode_stale(text)
    )


def changed_machines(before: Holding, after: Holding) -> list[Machine]:
    """The machines that are not in `after` what they were in `before`."""
    return [machine for key, machine in after.machines.items() if before.machines.get(key) is not machine]


def merged(first: Holding, second: Holding) -> Holding:
    """One holding that has the machines of both: two queries about one license, read at the same moment."""
    departed = max(first.departed, second.departed)  # counted for one of the two, maybe
    return replace(first, machines={**second.machines, **first.machines}, departed=departed)
