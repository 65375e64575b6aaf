"""What goes into the ledger's hot path and what comes out of it: plain values, the same for every database."""

from __future__ import annotations

from typing import Any

import msgspec

from api.licensing import Holding
from api.node.published import Mode


class LicenseQuery(msgspec.Struct, frozen=True, array_like=True):
    """One call's question: the license by its key's hash, the machine, and what a call of this id left before.

    As JSON it is an array: statements know the places of its members.
    """

    key_hash: str
    fingerprint: str | None = None
    event_id: str | None = None


class LicenseRecord(msgspec.Struct, frozen=True):
    """The answer to an `LicenseQuery`. `recorded`: the data of the event that already has this id, of `recorded_at`.

    `seq`: the place in the log of the license's last change. `orphan`: the id of a license whose policy is not there.
    `busy`: others hold the license, which was to be locked, and nothing is known of it here.
    """

    holding: Holding | None
    recorded: dict[str, Any] | None = None
    recorded_at: float | None = None
    seq: int = 0
    orphan: str | None = None
    busy: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the log, before the ledger has given it its `seq`. `data` is JSON-ready.

    `origin`, `origin_seq`: the queue it came through and its place there, None where it came directly.
    """

    event_id: str
    type: str
    license_id: str | None = None
    machine_id: str | None = None
    node: str
    instance: str
    epoch: int
    mode: Mode
    occurred_at: float
    data: dict[str, Any]
    origin: str | None = None
    origin_seq: int | None = None


class Change(msgspec.Struct, frozen=True):
    """What a decision made of a license: both ends, so that only what differs is written."""

    before: Holding
    after: Holding


class Tally(msgspec.Struct, frozen=True):
    """Verdicts of one minute (minutes since the epoch) to add to the counts on `/stats`."""

    minute: int
    code: str
    valid: bool
    count: int


class Touch(msgspec.Struct, frozen=True):
    """A license, and perhaps its machine, that was just seen."""

    license_id: str
    machine_id: str | None
    at: float


class Finding(msgspec.Struct, frozen=True):
    """What replay found and kept for the vendor to look at: a conflict of `kind`."""

    event_id: str
    kind: str
    license_id: str | None
    node: str
    found_at: float
    data: dict[str, Any]


class IdempotencyRecord(msgspec.Struct, frozen=True):
    """A row of `idempotency_records`: what the first call under one `Idempotency-Key` was answered."""

    id: str
    request_hash: str
    answer_json: str
    kid: str | None
    salt: str
    created_at: float


class Batch(msgspec.Struct, frozen=True):
    """All that one commit writes: the whole of it or nothing."""

    events: list[Event]
    changes: list[Change]
    tallies: list[Tally]
    touches: list[Touch]
    findings: list[Finding] = []
    record: IdempotencyRecord | None = None
