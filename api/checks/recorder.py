"""Gather, decide, record: every call goes through here, and its answer leaves after its event is committed.

Calls that only read share the check lane: one append for all that wait, and before it one look-up for those to which
the node's own snapshot does not say yes, since a denial is confirmed in the ledger before it is signed. Calls that
change a license share the write lane: the licenses are locked in one message, decided one after the other, and written
in the next. A check that turns out to change something (a license that runs from its first validation) moves there.
The calls of a license that others hold, or whose statements are slow, have a lane of their own (see `contention`);
those that are busy for longer than the budget go on without the ledger, one by one. A ledger that is only busy with a
license is there all the same, and other nodes may be giving its seats: no new seat is given without it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from api.checks.batcher import Batcher, Done, Flush, wait_for_result
from api.checks.contention import Contention, Outcomes, Work
from api.checks.isolated import Isolated
from api.checks.unit_of_work import MustWrite, Operation, Outcome, UnitOfWork
from api.ledger.errors import LedgerBusy, LedgerContradicts, LedgerDropped, LedgerRefused, LedgerUnavailable
from api.ledger.records import Batch, LicenseQuery, LicenseRecord
from api.ledger.store import Ledger
from api.licensing import WRITING_ACTS, decide
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import SharedState
from api.snapshot.evidence import Evidence
from api.snapshot.reader import Reader

_MAX_BATCH, _MAX_WAITING = 64, 512
_TRIES, _AT_ONCE_S = 5, 0.2
_TOUCHED_MAX = 50_000

#: Stands for a call that is not decided yet: whether the ledger shows all there is has to be asked first.
_SUSPECT = LedgerContradicts("not examined yet")

#: After these a call goes on without the ledger.
_WITHOUT_THE_LEDGER = (LedgerUnavailable, LedgerBusy, LedgerRefused, LedgerDropped)

T = TypeVar("T")
Lane = Batcher[Operation, Outcome]


class LicenseHeld(Exception):
    """Others hold this call's license: it belongs to the lane of those that wait alone."""


class Recorder:
    """The lanes of one process: three on its ledger, and the one that it goes without it."""

    def __init__(
        self,
        ledger: Ledger,
        node: Node,
        clock: Clock,
        *,
        reader: Reader | None = None,
        state: SharedState | None = None,
        isolated: Isolated | None = None,
        evidence: Evidence | None = None,
        hurried: Ledger | None = None,
        budget_s: float = 0.5,
        patience_s: float = 5.0,
        background: bool = True,
    ) -> None:
        """`reader`: this node's snapshot, if it keeps one; `isolated`: the lane to take where the ledger is away.

        `evidence`: what that snapshot says against a ledger that shows less. `hurried`: the same ledger with less time
        for each statement; `budget_s`: how long a call waits for others; `background`: as `Batcher` takes it.
        """
        self._evidence = evidence
        self._reader = reader
        state = state or SharedState(None)
        self._changes, self._breaker = state.changes, state.breaker
        self._isolated = isolated
        self._touched: dict[str, float] = {}
        self._ledger = ledger
        self._hurried = hurried or ledger
        self._contention = Contention(clock, budget_s, ledger.is_blocked)
        self._node = node
        self._clock = clock
        self._uncounted = 0
        self._uncounted_lock = threading.Lock()
        self._background = background
        self._checks = self._lane(self._flush_checks, patience_s)
        self._writes = self._lane(self._flush_writes, patience_s)
        self._alone = self._lane(self._flush_alone, patience_s)

    def attach_isolated(self, isolated: Isolated) -> None:
        """From now on, where the ledger is away, `isolated` is the lane to take."""
        self._isolated = isolated

    def open_queue(self) -> None:
        """Opens the queue before the first call, so that no answer waits for the check of the queue's file."""
        if self._isolated is not None:
            self._isolated.open()

    def _lane(self, flush: Flush[Operation, Outcome], patience_s: float) -> Lane:
        return Batcher(
            flush,
            max_batch=_MAX_BATCH,
            max_waiting=_MAX_WAITING,
            patience_s=patience_s,
            # A ledger that is away costs the calls in the backlog one failed try together, not one after the other.
            fails_backlog=LedgerUnavailable,
            next_lane=self._next_lane,
            background=self._background,
        )

    def begin(self, operation: Operation, finish: Callable[[Outcome], T], done: Done[T]) -> None:
        """Has `operation` decided and recorded; `done` is called once with what `finish` makes of the outcome.

        Or with `LedgerError`, `RequestIdReused`, `BacklogFull` or `FlushTimeout`, or what `finish` raises. Raises
        `BacklogFull` itself where that is so at once; waits for nothing where `is_non_blocking`.

        The first call that the ledger leaves without an answer isolates the node for all; its supervisor ends that.
        """
        self._changes.called()
        lane, operation = self._first_lane(operation)
        lane.begin(operation, finish, done)

    def submit(self, operation: Operation, finish: Callable[[Outcome], T]) -> T:
        """As `begin`, waited for: gives what `finish` makes of the outcome, or raises what `begin` reports."""

        def begin(done: Done[T]) -> None:
            self.begin(operation, finish, done)

        return wait_for_result(begin)

    @property
    def is_non_blocking(self) -> bool:
        """Whether `begin` finds the lane without a look into the queue, which others may be writing."""
        return self._isolated is None or self._breaker.isolated_since is not None or not self._breaker.may_hold_queued

    def longest(self, now: float) -> float:
        """For how many seconds at `now` (monotonic) the oldest batch has been under way; 0 where none is."""
        lanes = [self._checks, self._writes, self._alone, *([] if self._isolated is None else [self._isolated.lane])]
        return max(lane.longest(now) for lane in lanes)

    def _first_lane(self, operation: Operation) -> tuple[Lane, Operation]:
        if self._isolated is not None:
            if self._breaker.isolated_since is not None:
                return self._isolated.lane, operation
            if self._breaker.may_hold_queued and self._isolated.holds(operation):
                is_busy = self._breaker.is_queued_while_busy(operation.key_hash)
                busy = LedgerBusy("earlier calls wait for it") if is_busy else None
                return self._isolated.lane, replace(operation, busy=busy)
        if self._contention.goes_alone(operation):
            return self._alone, operation
        return self._writes if operation.call.act in WRITING_ACTS else self._checks, operation

    def _next_lane(self, operation: Operation, outcome: Outcome | BaseException) -> tuple[Lane, Operation] | None:
        """Where a call goes that its lane on the ledger did not record.

        Without the ledger goes what the ledger was away for, was busy with for too long, or did not take or keep: a
        constraint that an operator added refuses everybody's calls, and none of them is at fault. Replay finds out.
        """
        if isinstance(outcome, MustWrite):
            return self._writes, operation
        if isinstance(outcome, LicenseHeld):
            return self._alone, operation
        if self._isolated is None or not isinstance(outcome, _WITHOUT_THE_LEDGER):
            return None
        if isinstance(outcome, LedgerBusy) and self._breaker.isolated_since is None:
            self._breaker.license_busy(operation.key_hash)
            return self._isolated.lane, replace(operation, busy=outcome)
        return self._isolated.lane, operation

    def unknown(self, operation: Operation, as_of: float) -> Outcome:
        """The outcome for a key found unknown at `as_of`; counted with the next batch. Raises `LedgerError`."""
        if self._breaker.isolated_since is not None:
            raise LedgerUnavailable("what nobody knew a moment ago is not certain any more")
        verdict = decide(operation.call, None, as_of)
        self._count_later(1)
        return Outcome(verdict=verdict, as_of=as_of, event_id=operation.event_id)

    def _flush_checks(self, operations: list[Operation]) -> Outcomes:
        return self._flushed(self._contention.carried, self._check_batch, operations)

    def _flush_writes(self, operations: list[Operation]) -> Outcomes:
        return self._flushed(self._contention.carried, self._write_batch, operations)

    def _flush_alone(self, operations: list[Operation]) -> Outcomes:
        return self._flushed(self._contention.carried_alone, self._write_waiting, operations)

    def _flushed(
        self, carried: Callable[[Work, list[Operation]], Outcomes], work: Work, operations: list[Operation]
    ) -> Outcomes:
        """A batch that the ledger leaves without an answer isolates the node, even if no caller waits for it."""
        try:
            outcomes = carried(work, operations)
        except LedgerUnavailable:
            self._isolate()
            raise
        if any(isinstance(outcome, LedgerUnavailable) for outcome in outcomes):
            self._isolate()
        return outcomes

    def _isolate(self) -> None:
        if self._isolated is not None:
            self._breaker.isolate()

    def _check_batch(self, operations: Sequence[Operation], hurried: bool = False) -> Outcomes:
        unit, ledger = self._unit_of_work(), self._hurried if hurried else self._ledger
        outcomes = self._decide(unit, operations, ledger)
        uncounted = self._take_uncounted()
        unit.count_unknown(uncounted)
        batch = unit.batch()
        try:
            if batch.events or batch.tallies:
                self._append(batch, ledger)
        except Exception:
            self._count_later(uncounted)
            raise
        return outcomes

    def _decide(self, unit: UnitOfWork, operations: Sequence[Operation], ledger: Ledger) -> Outcomes:
        """Says yes from the snapshot where that is fresh; every denial, and every change, is the ledger's to say."""
        queries = [LicenseQuery(operation.key_hash, operation.call.fingerprint) for operation in operations]
        seen = [None] * len(queries) if self._reader is None else self._reader.look_up(queries)
        local = [unit.check_locally(operation, one) for operation, one in zip(operations, seen, strict=True)]
        open_ones = [i for i, outcome in enumerate(local) if outcome is None]
        known = self._look_up([queries[i] for i in open_ones], ledger) if open_ones else []
        contradicted = self._contradicted([queries[i] for i in open_ones], known)
        answers = {i: contradicted.get(at) or unit.check(operations[i], known[at]) for at, i in enumerate(open_ones)}
        return [answers[i] if outcome is None else outcome for i, outcome in enumerate(local)]

    def _contradicted(self, queries: list[LicenseQuery], known: list[LicenseRecord]) -> dict[int, LedgerContradicts]:
        """The queries, by place, to which the ledger showed less than this node's copy holds, without a reason."""
        if self._evidence is None:
            return {}
        suspects = self._evidence.suspects(queries, known)
        found = {at: self._evidence.examine(queries[at], known[at]) for at in suspects}
        return {at: contradiction for at, contradiction in found.items() if contradiction is not None}

    def _look_up(self, queries: list[LicenseQuery], ledger: Ledger) -> list[LicenseRecord]:
        began = self._clock.monotonic()
        try:
            return ledger.look_up(queries)
        except LedgerUnavailable:
            if not self._broke_at_once(began):
                raise
            return ledger.look_up(queries)

    def _broke_at_once(self, began: float) -> bool:
        """Whether what began then is worth another try.

        A connection that the ledger ends, as it does when it restarts, breaks at once and costs no answer. A ledger
        that let everyone wait will do so once more.
        """
        return self._clock.monotonic() - began <= _AT_ONCE_S

    def _unit_of_work(self) -> UnitOfWork:
        if len(self._touched) > _TOUCHED_MAX:
            self._touched.clear()
        return UnitOfWork(self._node, self._clock.now(), self._touched)

    def _take_uncounted(self) -> int:
        with self._uncounted_lock:
            count, self._uncounted = self._uncounted, 0
        return count

    def _count_later(self, count: int) -> None:
        with self._uncounted_lock:
            self._uncounted += count

    def _append(self, batch: Batch, ledger: Ledger) -> None:
        """Appends; where the connection broke and the commit is in doubt, again."""
        began = self._clock.monotonic()
        try:
            self._again_while_busy(lambda: ledger.append(batch), ledger)
        except LedgerUnavailable:
            if not (batch.events and self._broke_at_once(began)):
                raise
            self._append_again(batch, ledger)

    def _append_again(self, batch: Batch, ledger: Ledger) -> None:
        try:
            self._again_while_busy(lambda: ledger.append(batch), ledger)
        except LedgerRefused:
            # Its ids are taken where the first try was committed after all. All of a batch is there, or nothing.
            if not ledger.has_event(batch.events[0].event_id):
                raise

    def _write_batch(self, operations: Sequence[Operation], hurried: bool = False) -> Outcomes:
        return self._written(operations, hurried, skip_locked=True)

    def _write_waiting(self, operations: Sequence[Operation], hurried: bool) -> Outcomes:
        """As `_write_batch`, for a lane in which no other call waits behind: waits for the licenses' locks."""
        return self._written(operations, hurried, skip_locked=False)

    def _written(self, operations: Sequence[Operation], hurried: bool, *, skip_locked: bool) -> Outcomes:
        began, ledger = self._clock.monotonic(), self._hurried if hurried else self._ledger

        def write() -> Outcomes:
            return self._write(operations, ledger, skip_locked=skip_locked)

        try:
            return self._again_while_busy(write, ledger)
        except LedgerUnavailable:
            if not self._broke_at_once(began):
                raise
            # In doubt: the events that were committed after all are found again by their ids.
            return self._again_while_busy(write, ledger)

    def _again_while_busy(self, work: Callable[[], T], ledger: Ledger) -> T:
        """`work` on `ledger` once more, after a short random wait, where it fell out with others (a deadlock, say).

        Not where it waited for them in vain: whose trouble that is has to be found first.
        """
        if ledger is not self._ledger:
            return work()  # hurried: there is no time for more
        began = self._clock.monotonic()
        for attempt in range(1, _TRIES):
            try:
                return work()
            except LedgerBusy:
                if not self._broke_at_once(began):
                    raise
                time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311 - only spreads the retries
        return work()

    def _write(
        self, operations: Sequence[Operation], ledger: Ledger, *, skip_locked: bool, believed: bool = False
    ) -> Outcomes:
        """`believed`: whatever the ledger does not show has been examined and is really absent."""
        queries = [
            LicenseQuery(operation.key_hash, operation.call.fingerprint, operation.event_id) for operation in operations
        ]
        try:
            with ledger.transaction(queries, skip_locked=skip_locked) as transaction:
                unit = self._unit_of_work()
                unit.load(transaction.known)
                suspects = set() if believed else self._suspects(queries, transaction.known)
                outcomes: Outcomes = [
                    self._undecided(answer, i in suspects) or unit.write(operation, answer)
                    for i, (operation, answer) in enumerate(zip(operations, transaction.known, strict=True))
                ]
                batch = unit.batch()
                if batch.events or batch.tallies:
                    transaction.commit(batch)
        finally:
            # However it ended: after a commit in doubt the snapshot is not to be believed either.
            for query in queries:
                self._changes.license_changed(query.key_hash)
        self._put_into_the_snapshot(batch, transaction.known)
        for i in suspects:
            # The lock is gone by now: a lane that skips what others hold may have to skip this.
            again = {"skip_locked": skip_locked, "believed": True}
            contradiction = self._examined(queries[i], transaction.known[i])
            outcomes[i] = contradiction or self._write([operations[i]], ledger, **again)[0]
        return outcomes

    @staticmethod
    def _undecided(answer: LicenseRecord, is_suspect: bool) -> Exception | None:
        """The error that keeps a call from being decided by this record; None where nothing does."""
        if answer.busy:
            return LicenseHeld()
        return _SUSPECT if is_suspect else None

    def _suspects(self, queries: list[LicenseQuery], known: list[LicenseRecord]) -> set[int]:
        if self._evidence is None:
            return set()
        return {i for i in self._evidence.suspects(queries, known) if not known[i].busy}

    def _examined(self, query: LicenseQuery, known: LicenseRecord) -> LedgerContradicts | None:
        """Examines outside the transaction, whose connection may be this process's only one."""
        assert self._evidence is not None
        return self._evidence.examine(query, known)

    def _put_into_the_snapshot(self, batch: Batch, known: list[LicenseRecord]) -> None:
        """Writes the change into this node's copy before it is answered: the ledger may be away for the next call."""
        if self._reader is not None and batch.changes:
            seqs = {answer.holding.license.id: answer.seq for answer in known if answer.holding is not None}
            self._reader.put_own([(change, seqs[change.after.license.id]) for change in batch.changes])
