"""What was true when: every state each license had in the ledger, and every call that was answered.

Verdicts are held against that, and the ledger's end against what the events in its log come to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from api.checks.unit_of_work import Operation, Outcome
from api.ledger.records import Batch
from api.licensing import ALWAYS, Act, Code, Holding, Verdict, Watch, decide, retried
from tests.chaos.simulation.books import Books, Row
from tests.chaos.simulation.disk import EPOCH, Snapshot
from tests.chaos.simulation.kernel import Kernel, Violation
from tests.chaos.simulation.ledger_clock import LedgerClock

#: By how much a node's idea of ledger time may be off: half the longest round trip.
SKEW_S = 1.1
#: A check may be answered from a copy of this age.
_FRESH_S = 1.0
#: What a node that is cut off may deny (the contract, section 1).
_CERTAIN = frozenset(
    {
        Code.BANNED,
        Code.SUSPENDED,
        Code.EXPIRED,
        Code.PRODUCT_SCOPE_MISMATCH,
        Code.VERSION_SCOPE_MISMATCH,
        Code.ENTITLEMENTS_MISSING,
        Code.FINGERPRINT_SCOPE_REQUIRED,
    }
)
#: No silence counts: which of it does, is judged apart.
_NOBODY_WATCHED = Watch(until=float("-inf"))
#: What a retry was answered the first time.
_GRANTED = Verdict(code=Code.VALID, valid=True, detail="")
_CLOCKS = {Code.HEARTBEAT_DEAD: Act.PING, Code.OVERDUE: Act.CHECK_IN}


@dataclass(frozen=True)
class Version:
    """A license as it was in the ledger from `since` (true time) on."""

    since: float
    holding: Holding


class Truth:
    """`is_lost`: whether an event is one that nothing could have kept; `in_ledger`: whether it is there now."""

    def __init__(
        self,
        kernel: Kernel,
        clock: LedgerClock,
        books: Books,
        is_lost: Callable[[str], bool],
        in_ledger: Callable[[str], bool],
    ) -> None:
        #: Someone emptied the heartbeats: a node that is cut off just then is one that nobody has ever heard of.
        self.nodes_forgotten = False
        self._kernel, self._clock, self._is_lost, self._in_ledger = kernel, clock, is_lost, in_ledger
        self._versions: defaultdict[str, list[Version]] = defaultdict(list)
        self._rows: dict[tuple[int, str, int], Holding] = {}
        #: The pings and check-ins that were answered, of (act, license, fingerprint): when they came, true time.
        self._heard: defaultdict[tuple[str, str, str | None], list[tuple[float, str]]] = defaultdict(list)
        self.restored(books, 0)

    def committed(self, batch: Batch) -> None:
        """The ledger's licenses changed."""
        now = self._kernel.now
        for change in batch.changes:
            id = change.after.license.id
            self._between(id, change.before, batch, now)
            self._versions[id].append(Version(now, change.after))
        for event in batch.events:
            if event.type == "machine.culled" and event.license_id is not None:
                holding = self._versions[event.license_id][-1].holding
                self._clock_ran(Code.HEARTBEAT_DEAD, holding, event.data["fingerprint"], now, "a machine is culled")

    def rows(self, licenses: dict[str, Row], incarnation: int) -> None:
        """Remembers the rows as they are, each under the place of its last change."""
        for id, row in licenses.items():
            self._rows[incarnation, id, row.seq] = row.holding

    def _between(self, id: str, before: Holding, batch: Batch, now: float) -> None:
        """Calls that share a commit are decided one on top of the other."""
        calls = [event for event in batch.events if event.license_id == id and event.origin is None]
        for event in calls[:-1]:
            if "call" in event.data:
                after = decide(event.data["call"], before, event.occurred_at).holding
                assert after is not None
                before = after
                self._versions[id].append(Version(now, before))

    def restored(self, books: Books, incarnation: int) -> None:
        """The ledger is an older one."""
        now = self._kernel.now
        for id, row in books.licenses.items():
            self._versions[id].append(Version(now, row.holding))
        self.rows(books.licenses, incarnation)

    def judge(self, operation: Operation, outcome: Outcome, received_at: float) -> None:
        """Raises `Violation` where the verdict is one that nobody may give."""
        verdict, now = outcome.verdict, self._kernel.now
        if verdict.holding is None:
            if operation.key_hash != "unknown" or outcome.durability == "queue":
                raise Violation("nobody is denied who should not be", f"{operation.key_hash} is called unknown")
            return
        id = verdict.holding.license.id
        shown = f"{operation.nonce}: {operation.call.act} of {operation.key_hash} is {verdict.code}"
        # A retry is told what the first try was, which a node that was cut off may have decided by older knowledge.
        moments = self._clock.meant(outcome.as_of, SKEW_S)
        since = min(moments, default=0.0) - SKEW_S if outcome.first or verdict.valid else 0.0
        window = self._window(id, since, now)
        if not verdict.valid:
            if outcome.durability == "queue" and verdict.code not in _CERTAIN:
                raise Violation("nobody is denied who should not be", f"{shown} without the ledger")
            if not self._justified(operation, outcome, window, since, now):
                raise Violation("nobody is denied who should not be", f"{shown}, and at no moment was so")
            self._clock_ran(verdict.code, verdict.holding, operation.call.fingerprint, now, shown)
            return
        revoked = all(version.holding.license.status != "active" for version in window)
        if revoked and operation.call.act is not Act.DEACTIVATE:
            raise Violation("a revocation is effective", f"{shown}, and was revoked all the time")
        as_of = max(moments, default=now)
        if outcome.durability == "ledger" and as_of < received_at - _FRESH_S - SKEW_S:
            raise Violation("a revocation is effective", f"{shown} by what was known {now - as_of:.1f} s ago")
        if operation.call.act not in _CLOCKS.values():
            return
        key = (operation.call.act, id, operation.call.fingerprint)
        self._heard[key].append((received_at, outcome.event_id))

    def _window(self, id: str, since: float, until: float) -> list[Version]:
        """The versions that were true at some moment between."""
        versions = self._versions[id]
        ended = [next_one.since for next_one in versions[1:]] + [float("inf")]
        return [v for v, end in zip(versions, ended, strict=True) if v.since <= until and end >= since]

    def _justified(
        self, operation: Operation, outcome: Outcome, window: list[Version], since: float, now: float
    ) -> bool:
        for version in window:
            for moment in (max(since, version.since), now + SKEW_S):
                if any(self._denies(operation, outcome, version.holding, said) for said in self._clock.said(moment)):
                    return True
        return False

    @staticmethod
    def _denies(operation: Operation, outcome: Outcome, holding: Holding, moment: float) -> bool:
        """Whether it is so at that moment of ledger time, with silences counted or not."""
        found = [decide(operation.call, holding, moment, watch=watch) for watch in (ALWAYS, _NOBODY_WATCHED)]
        if not outcome.first:  # a machine that was activated may hold no seat any more
            found.append(retried(operation.call, holding, _GRANTED, moment, moment)[0])
        return any(not verdict.valid and verdict.code is outcome.verdict.code for verdict in found)

    def _clock_ran(self, code: Code, holding: Holding, fingerprint: str | None, now: float, shown: str) -> None:
        """A clock may deny only after so long a silence while everybody could have been heard."""
        act = _CLOCKS.get(code)
        if act is None or self.nodes_forgotten:
            return
        license = holding.license
        interval = license.policy.machine_heartbeat_s if act is Act.PING else license.check_in_s
        heard = self._heard[act, license.id, fingerprint if act is Act.PING else None]
        known = max((at for at, event_id in heard if self._in_ledger(event_id)), default=license.created_at - EPOCH)
        # What is still in a queue ends a silence that had become too long before it, and nobody else can know.
        next_heard = min((at for at, event_id in heard if at > known and not self._is_lost(event_id)), default=now)
        if interval is not None and next_heard - known < interval - self._clock.crept:
            raise Violation("no clock runs against the silenced", f"{shown}, heard of {now - next_heard:.1f} s ago")

    def is_a_true_copy(self, copy: Snapshot, incarnation: int) -> str | None:
        """What a copy that has just been brought up to date has and the ledger never had; None: nothing."""
        for id, row in copy.rows.items():
            if id in copy.ahead:
                continue
            if self._rows.get((incarnation, id, row.seq)) is not row.holding:
                return f"{id} as of {row.seq}"
        return None
