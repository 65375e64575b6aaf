"""One batch in the making: calls decided one after the other, and what that leaves to write."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from api.ledger.errors import LedgerBusy, LedgerUnavailable
from api.ledger.records import Batch, Change, Event, LicenseRecord, Tally, Touch
from api.ledger.rows import changed_machines, merged
from api.licensing import Call, Code, Holding, Verdict, decide, is_certain, retried
from api.node.identity import Node
from api.node.published import Mode
from api.snapshot.reader import SnapshotRecord

#: A license or machine is written as seen at most this often by checks that change nothing else.
TOUCH_EVERY_S = 60.0
#: How many bytes of JSON the entitlements that a call asks for may take in its event.
_ENTITLEMENTS_MAX = 1024


class RequestIdReused(Exception):
    """The request id has already been used for a call with another body."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call on its way. `body_hash` (of the body without nonce and client) is given for idempotent calls only.

    `busy`: why the ledger, which is there, did not take it. Then its machine gets no new seat without the ledger, no
    use that has a limit is counted, and what only the ledger can say is answered with this.
    """

    call: Call
    key_hash: str
    event_id: str
    nonce: str
    body_hash: str | None = None
    busy: LedgerBusy | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A decided and recorded call. `as_of`: how fresh the knowledge was that decided it, ledger time.

    `uses`: as counted by this call; `first` is false for a retry, which gets the first try's outcome. `durability`:
    whether its event is in the ledger, or in this node's queue.
    """

    verdict: Verdict
    as_of: float
    event_id: str
    uses: int = 0
    first: bool = True
    durability: Literal["ledger", "queue"] = "ledger"


class MustWrite(Exception):
    """This check changes something: it belongs to the write lane."""


class UnitOfWork:
    """What the calls of a batch decided at one moment, each on top of what the ones before it did."""

    def __init__(self, node: Node, now: float, touched: dict[str, float], *, isolated: bool = False) -> None:
        """`touched`: when this process last wrote what as seen; goes on from unit to unit.

        `isolated`: without the ledger, for the queue.
        """
        self._node = node
        self._epoch = node.epoch
        self._mode: Mode = "isolated" if isolated else node.mode
        self._watch = node.watch
        self._now = now
        self._events: dict[str, Event] = {}
        self._before: dict[str, Holding] = {}
        self._holdings: dict[str, Holding] = {}
        self._tallies: Counter[tuple[str, bool]] = Counter()
        self._touches: dict[str, Touch] = {}
        self._touched = touched

    def load(self, known: Sequence[LicenseRecord]) -> None:
        """Joins what the queries of one batch found of one license: its machines come with different queries."""
        for answer in known:
            if answer.holding is not None:
                id = answer.holding.license.id
                held = self._before.get(id)
                self._before[id] = answer.holding if held is None else merged(held, answer.holding)
        self._holdings = dict(self._before)

    def check_locally(self, operation: Operation, seen: SnapshotRecord | None) -> Outcome | None:
        """The outcome by this node's own snapshot: None unless that says yes and nothing is to be changed."""
        if seen is None or seen.known.holding is None:
            return None
        verdict = decide(operation.call, seen.known.holding, self._now, watch=self._watch)
        if not verdict.valid or verdict.holding is not seen.known.holding:
            return None
        self._record(operation, verdict)
        self._touch(verdict)
        return self._outcome(operation, verdict, seen.as_of)

    def check(self, operation: Operation, answer: LicenseRecord) -> Outcome | BaseException:
        verdict = decide(operation.call, answer.holding, self._now, watch=self._watch)
        if verdict.holding is not answer.holding:
            return MustWrite()
        self._record(operation, verdict)
        self._touch(verdict)
        return self._outcome(operation, verdict)

    def write(self, operation: Operation, answer: LicenseRecord) -> Outcome | BaseException:
        holding = None if answer.holding is None else self._holdings[answer.holding.license.id]
        earlier = self._events.get(operation.event_id)
        if earlier is not None:
            answer = replace(answer, recorded=earlier.data, recorded_at=earlier.occurred_at)
        if answer.recorded is not None and holding is not None:
            return self._retried(operation, holding, answer.recorded, answer.recorded_at or 0.0)
        verdict = decide(operation.call, holding, self._now, watch=self._watch)
        return self._written(operation, holding, verdict)

    def write_isolated(self, operation: Operation, answer: LicenseRecord, as_of: float) -> Outcome | BaseException:
        """As `write`, by what was known at `as_of`; gives `LedgerUnavailable` where only the ledger can decide."""
        if answer.holding is None:
            return LedgerUnavailable("a key that this node does not know")
        holding = self._holdings[answer.holding.license.id]
        earlier = self._events.get(operation.event_id)
        if earlier is not None:
            answer = replace(answer, recorded=earlier.data, recorded_at=earlier.occurred_at)
        retried = None
        if answer.recorded is not None:
            retried = self._retried(operation, holding, answer.recorded, answer.recorded_at or 0.0)
        if isinstance(retried, BaseException):
            return retried
        watch = replace(self._watch, until=min(self._watch.until, as_of))
        verdict = retried.verdict if retried else decide(operation.call, holding, self._now, watch=watch)
        may_grant = operation.busy is None or retried is not None  # a retry grants nothing anew
        if not is_certain(operation.call, holding, verdict, as_of, may_grant=may_grant):
            return LedgerUnavailable(f"{verdict.code} is not certain without the ledger")
        outcome = retried or self._written(operation, holding, verdict, as_of)
        return replace(outcome, durability="queue", as_of=min(outcome.as_of, as_of))

    def _written(
        self, operation: Operation, holding: Holding | None, verdict: Verdict, as_of: float | None = None
    ) -> Outcome:
        if verdict.holding is not None and verdict.holding is not holding:
            seen = replace(verdict.holding.license, last_seen_at=self._now)
            verdict = replace(verdict, holding=replace(verdict.holding, license=seen))
            self._holdings[seen.id] = verdict.holding  # type: ignore[assignment]
        self._record(operation, verdict, _more_data(operation, holding, verdict))
        return self._outcome(operation, verdict, as_of)

    def count_unknown(self, count: int) -> None:
        if count:
            self._tallies[(Code.NOT_FOUND, False)] += count

    def batch(self) -> Batch:
        minute = int(self._now // 60)
        changes = [
            Change(before, self._holdings[id])
            for id, before in self._before.items()
            if self._holdings[id] is not before
        ]
        # In one order everywhere: both lanes of a process write the same rows, and would wait for each other.
        tallies = [Tally(minute, code, valid, count) for (code, valid), count in sorted(self._tallies.items())]
        return Batch(list(self._events.values()), changes, tallies, list(self._touches.values()))

    def _retried(
        self, operation: Operation, holding: Holding, recorded: dict[str, Any], recorded_at: float
    ) -> Outcome | BaseException:
        if recorded.get("body") != operation.body_hash:
            return RequestIdReused()
        first = Verdict(code=Code(recorded["code"]), valid=recorded["valid"], detail=recorded["detail"])
        verdict, as_of = retried(operation.call, holding, first, recorded_at, self._now)
        uses = recorded.get("uses", holding.license.uses)
        # The same nonce: this very try, whose commit was in doubt. The answer is the one that names the event.
        first_try = recorded.get("nonce") == operation.nonce
        return Outcome(verdict=verdict, as_of=as_of, event_id=operation.event_id, uses=uses, first=first_try)

    def _record(self, operation: Operation, verdict: Verdict, more: dict[str, Any] | None = None) -> None:
        self._tallies[(verdict.code, verdict.valid)] += 1
        if verdict.holding is None:
            return  # an unknown key is counted but makes no event, or anyone could fill the log
        license = verdict.holding.license
        machine = verdict.holding.machines.get(operation.call.fingerprint or "")
        self._events[operation.event_id] = Event(
            event_id=operation.event_id,
            type=operation.call.act,
            license_id=license.id,
            machine_id=None if machine is None else machine.id,
            node=self._node.id,
            instance=self._node.instance,
            epoch=self._epoch,
            mode=self._mode,
            occurred_at=self._now,
            data=_event_data(operation, verdict) | (more or {}),
        )

    def _touch(self, verdict: Verdict) -> None:
        if verdict.holding is None or not verdict.valid:
            return
        license, machine = verdict.holding.license, verdict.machine
        id, stored = (license.id, license.last_seen_at) if machine is None else (machine.id, machine.last_seen_at)
        # What was read may come from before this process's own last touch.
        seen = max(stored or 0.0, self._touched.get(id, 0.0))
        if self._now - seen >= TOUCH_EVERY_S:
            self._touched[id] = self._now
            self._touches[id] = Touch(license.id, None if machine is None else machine.id, self._now)

    def _outcome(self, operation: Operation, verdict: Verdict, as_of: float | None = None) -> Outcome:
        uses = 0 if verdict.holding is None else verdict.holding.license.uses
        known_at = self._now if as_of is None else as_of
        return Outcome(verdict=verdict, as_of=known_at, event_id=operation.event_id, uses=uses)


def _more_data(operation: Operation, before: Holding | None, verdict: Verdict) -> dict[str, Any]:
    """What else a write did: the ids of other machines whose seats it took, and the expiry that it started."""
    after = verdict.holding
    if before is None or after is None or after is before:
        return {}
    changed = changed_machines(before, after)
    released = [machine.id for machine in changed if machine.fingerprint != operation.call.fingerprint]
    started = after.license.expires_at if before.license.expires_at is None else None
    return ({"released": released} if released else {}) | ({"started": started} if started is not None else {})


def _event_data(operation: Operation, verdict: Verdict) -> dict[str, Any]:
    call, left_out = _kept(operation.call, verdict.holding)
    data = {
        "code": verdict.code,
        "valid": verdict.valid,
        "detail": verdict.detail,
        "nonce": operation.nonce,
        "call": call,
        **left_out,
    }
    if operation.body_hash is not None:
        assert verdict.holding is not None
        data |= {"body": operation.body_hash, "uses": verdict.holding.license.uses}
    return data


def _kept(call: Call, holding: Holding | None) -> tuple[Call, dict[str, Any]]:
    """The call as its event keeps it, and what is kept in place of what is left out: an event is at most 4 KiB.

    Of a long list of entitlements those are kept that the license lacks; of what is still too long a hash. No other
    field of a call can be long, and replay needs none of the list.
    """
    if len(asked := msgspec.json.encode(call.entitlements)) <= _ENTITLEMENTS_MAX:
        return call, {}
    held = set() if holding is None else set(holding.license.entitlements)
    missing = tuple(one for one in call.entitlements if one not in held)
    if len(msgspec.json.encode(missing)) > _ENTITLEMENTS_MAX:
        missing = ()
    left_out = {"count": len(call.entitlements), "sha256": hashlib.sha256(asked).hexdigest()}
    return replace(call, entitlements=missing), {"entitlements": left_out}
