"""From a node's queue into the ledger: each event once, merged into its license under the license's row lock.

An effect is applied only where its event is new to the log, and both are one commit; so a batch whose commit is in
doubt is simply sent again. What two nodes granted beyond a limit is kept, and noted for the vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from sqlalchemy import delete, select

from api.checks.isolated import from_row
from api.checks.unit_of_work import TOUCH_EVERY_S
from api.ledger import migrate, tables
from api.ledger.errors import LedgerBusy, LedgerContradicts, LedgerError, LedgerRefused
from api.ledger.log import Journal
from api.ledger.records import Batch, Change, Event, Finding, LicenseQuery, LicenseRecord, Tally, Touch
from api.ledger.rows import changed_machines, merged
from api.ledger.store import Ledger
from api.licensing import Call, Code, Holding, Past, merge
from api.node.clock import Clock
from api.node.clock_judge import TOLERANCE_S
from api.snapshot.evidence import Evidence
from failover.errors import Doubted, NotTaken, Unreadable
from failover.queue import Queued

#: The kinds of findings besides the merge's own: the same call with another body, and an event that is set aside.
REUSED, DEAD = "reused", "dead"
_AT_ONCE = 500


class LedgerReplay:
    """The handler of `failover.Replay` on one ledger, in the name of `node`."""

    def __init__(self, ledger: Ledger, node: str, clock: Clock, evidence: Evidence | None = None) -> None:
        """`evidence`: what this node's copy says of licenses that the ledger does not show."""
        self._evidence = evidence
        self._ledger = ledger
        self._node = node
        self._clock = clock

    def __call__(self, origin: str, batch: Sequence[Queued]) -> None:
        """Commits all of `batch`, or nothing. Raises `Unreadable`, `Doubted`, `NotTaken`, and `LedgerUnavailable`."""
        latest = self._clock.now() + TOLERANCE_S
        pasts = [_read(origin, queued, latest) for queued in batch]
        try:
            self._replay(pasts)
        except LedgerError as error:
            raise _meaning(error) from error
        except Exception as error:
            # The driver's, or ours: of one event's words, most likely. It must not hold up the others.
            raise Doubted(type(error).__name__) from error

    def ledger_id(self) -> str:
        """Which ledger this is: the same after a restore from its backup. Raises `LedgerError`."""
        return migrate.ledger_id(self._ledger.database)

    def note_dead(self, queued: Queued, reason: str) -> None:
        """Keeps, where the vendor sees it, that this event was set aside. Raises `LedgerError`."""
        data = {"reason": reason, "kind": queued.event.kind, "occurred_at": queued.event.occurred_at}
        finding = self._finding(queued.event.event_id, DEAD, queued.event.key or None, data)
        self._ledger.append(Batch([], [], [], [], [finding]))

    def _replay(self, read: Sequence[_Read]) -> None:
        license_ids = {event.license_id for event, _ in read if event.license_id}
        key_hashes = self._key_hashes(license_ids)
        self._require_absence(license_ids - key_hashes.keys())
        queries = [
            LicenseQuery(key_hashes.get(event.license_id or "", ""), past.call.fingerprint, event.event_id)
            for event, past in read
        ]
        with self._ledger.transaction(queries) as transaction:
            merging = _Merging(transaction.known, self._finding)
            for (event, past), known in zip(read, transaction.known, strict=True):
                if event.license_id in key_hashes and known.holding is None:
                    raise LedgerBusy("the license was given another key just now")
                merging.take(event, past, known)
            transaction.commit(merging.batch())

    def _key_hashes(self, licenses: set[str]) -> dict[str, str]:
        """By license id; a license that was deleted meanwhile is left out."""
        query = select(tables.licenses.c.id, tables.licenses.c.key_hash).where(tables.licenses.c.id.in_(licenses))
        with self._ledger.database.reading() as connection:
            return {row.id: row.key_hash for row in connection.execute(query)}

    def _require_absence(self, license_ids: set[str]) -> None:
        """Raises `LedgerContradicts` where one of these is only hidden: its events would be taken without effect."""
        if self._evidence is not None:
            for license_id in sorted(license_ids):
                self._evidence.require_absence(tables.licenses, license_id)
        if license_ids and self._key_hashes(license_ids):
            raise LedgerBusy("a license is shown again that was not a moment ago")

    def _finding(self, event_id: str, kind: str, license_id: str | None, data: dict[str, Any]) -> Finding:
        return Finding(event_id, kind, license_id, self._node, self._clock.now(), data)


def forget_dead(journal: Journal, event_ids: Sequence[str]) -> None:
    """These events wait again: `sync.dead` counts them no more, and the log says so. Raises `LedgerError`."""
    findings = tables.replay_findings
    with journal.change() as change:
        for start in range(0, len(event_ids), _AT_ONCE):
            some = findings.c.event_id.in_(event_ids[start : start + _AT_ONCE])
            change.connection.execute(delete(findings).where(findings.c.kind == DEAD, some))
        change.commit(journal.event("events.revived", count=len(event_ids)))


class _Merging:
    """What the events of one batch make of their licenses, one after the other."""

    def __init__(
        self, known: Sequence[LicenseRecord], finding: Callable[[str, str, str | None, dict[str, Any]], Finding]
    ) -> None:
        self._finding = finding
        self._before: dict[str, Holding] = {}
        for answer in known:
            if answer.holding is not None:
                held = self._before.get(answer.holding.license.id)
                self._before[answer.holding.license.id] = merged(held, answer.holding) if held else answer.holding
        self._after = dict(self._before)
        self._events: dict[str, Event] = {}
        self._findings: list[Finding] = []

    def take(self, event: Event, past: Past, known: LicenseRecord) -> None:
        earlier = self._events.get(event.event_id)
        recorded = earlier.data if earlier else known.recorded
        if recorded is not None:
            if recorded.get("body") != event.data.get("body"):
                self._note(event, REUSED)
            return
        self._events[event.event_id] = event
        holding = self._after.get(event.license_id or "")
        if holding is None:
            return  # deleted meanwhile: what was answered stays in the log all the same
        result = merge(past, holding)
        self._after[holding.license.id] = result.holding
        for kind in result.conflicts:
            self._note(event, kind)

    def batch(self) -> Batch:
        changed = [(self._before[id], after) for id, after in self._after.items() if after is not self._before[id]]
        # Most of a queue is checks, which change nothing: a row that is only touched is no news for every snapshot.
        changes = [Change(before, after) for before, after in changed if not _is_only_seen(before, after)]
        touches = [
            _touch(before, after)
            for before, after in changed
            if _is_only_seen(before, after) and _since_seen(before, after) >= TOUCH_EVERY_S
        ]
        return Batch(list(self._events.values()), changes, self._tallies(), touches, self._findings)

    def _tallies(self) -> list[Tally]:
        counts: dict[tuple[int, str, bool], int] = {}
        for event in self._events.values():
            counted = (int(event.occurred_at // 60), str(event.data["code"]), bool(event.data["valid"]))
            counts[counted] = counts.get(counted, 0) + 1
        return [Tally(*counted, count) for counted, count in sorted(counts.items())]

    def _note(self, event: Event, kind: str) -> None:
        data = {"type": event.type, "occurred_at": event.occurred_at, **event.data}
        self._findings.append(self._finding(event.event_id, kind, event.license_id, data))


def _is_only_seen(before: Holding, after: Holding) -> bool:
    """Whether one touch says it all: the license, and one machine at most, were seen at the same moment."""
    moment, machines = after.license.last_seen_at, changed_machines(before, after)
    if len(machines) > 1 or any(machine.last_seen_at != moment for machine in machines):
        return False
    seen = [replace(held, last_seen_at=moment) for m in machines if (held := before.machines.get(m.fingerprint))]
    license = replace(before.license, last_seen_at=moment)
    return after == replace(before, license=license, machines=before.machines | {m.fingerprint: m for m in seen})


def _since_seen(before: Holding, after: Holding) -> float:
    """For how long the machine had not been seen, or the license where no machine was: a seat may hang on it."""
    changed = changed_machines(before, after)
    seen = before.machines[changed[0].fingerprint] if changed else before.license
    return (after.license.last_seen_at or 0.0) - (seen.last_seen_at or 0.0)


def _touch(before: Holding, after: Holding) -> Touch:
    machines = changed_machines(before, after)
    return Touch(after.license.id, machines[0].id if machines else None, after.license.last_seen_at or 0.0)


class _Read(NamedTuple):
    """A queue's row as it was read: the event, and what it says of the call."""

    event: Event
    past: Past


def _read(origin: str, queued: Queued, latest: float) -> _Read:
    """`latest`: see `Past`. Raises `Unreadable`."""
    try:
        event = replace(from_row(queued.event), origin=origin, origin_seq=queued.position)
        return _Read(event, _past(event, msgspec.convert(event.data["call"], Call), latest))
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _past(event: Event, call: Call, latest: float) -> Past:
    data = event.data
    code, valid = Code(data["code"]), bool(data["valid"])
    return Past(call=call, code=code, valid=valid, at=event.occurred_at, started=data.get("started"), latest=latest)


def _meaning(error: LedgerError) -> Exception:
    """What the ledger's error means for a batch. Where the ledger did not answer it says nothing of the batch."""
    if isinstance(error, LedgerRefused):
        return Doubted(str(error))
    if isinstance(error, (LedgerBusy, LedgerContradicts)) or error.answered:
        return NotTaken(str(error))
    return error
