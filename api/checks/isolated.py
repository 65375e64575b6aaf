"""The lane of an isolated node: decide from the snapshot, queue, answer.

What is decided here stands on the snapshot with this node's own queued effects put over it. The events of a batch go
into the queue with one fsync before any of its answers leaves; `api.supervisor.replay` brings them to the ledger.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
from filelock import FileLock
from filelock import Timeout as LockTimeout

from api.checks.batcher import Batcher
from api.checks.unit_of_work import Operation, Outcome, UnitOfWork
from api.ledger.errors import LedgerUnavailable, QueueIsFull
from api.ledger.records import Batch, Event, LicenseQuery, LicenseRecord
from api.licensing import WRITING_ACTS
from api.node.clock import Clock
from api.node.identity import Node
from api.node.ledger_breaker import LedgerBreaker
from api.snapshot import Reader
from api.snapshot.reader import SnapshotRecord
from failover.errors import QueueError, QueueFull
from failover.queue import Event as Row
from failover.queue import EventQueue

_MAX_BATCH = 64
_MAX_WAITING = 512
_LOCK_TIMEOUT_S = 2.0
#: A batch is in the queue within a millisecond or two: to look only every millisecond would cost a share of that.
_LOCK_POLL_S = 0.0002

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode

Outcomes = list[Outcome | BaseException]


def to_row(event: Event) -> Row:
    """The event as the queue keeps it: one license fills its own share."""
    return Row(event.event_id, event.type, _encode(event).decode(), event.occurred_at, event.license_id or "")


def from_row(row: Row) -> Event:
    """The event of a queue's row. Raises `msgspec.MsgspecError` where it cannot be read."""
    return _decode(row.body)


class _Decided(msgspec.Struct, frozen=True):
    """A batch as it was decided. `seqs`: as of which change of the ledger each license was known, by its id."""

    ledger_id: str
    outcomes: Outcomes
    batch: Batch
    seqs: dict[str, int]


class Isolated:
    """One process's lane into the node's queue at `path`."""

    def __init__(
        self,
        path: Path,
        reader: Reader,
        breaker: LedgerBreaker,
        node: Node,
        clock: Clock,
        *,
        patience_s: float = 5.0,
        background: bool = True,
    ) -> None:
        self._path = path
        self._reader = reader
        self._breaker = breaker
        self._node = node
        self._clock = clock
        self._queue: EventQueue | None = None
        # For what changes a license: two workers that decide at once would give the last seat twice, and answer a
        # call's retry twice.
        self._one = FileLock(
            f"{path}.lane.lock", timeout=_LOCK_TIMEOUT_S, poll_interval=_LOCK_POLL_S, thread_local=False
        )
        self._opening = threading.Lock()
        #: Decides and queues. A call ends with `LedgerUnavailable` (or its own `busy`) where only the ledger could say,
        #: or no copy is young enough; with `QueueIsFull`, `RequestIdReused` or `FlushTimeout`.
        self.lane: Batcher[Operation, Outcome] = Batcher(
            self._flush,
            max_batch=_MAX_BATCH,
            max_waiting=_MAX_WAITING,
            patience_s=patience_s,
            background=background,
        )

    def open(self) -> None:
        """Opens the queue before the first call needs it. Where that fails, that call will say why."""
        with contextlib.suppress(QueueError, OSError):
            self._open()

    def holds(self, operation: Operation) -> bool:
        """Whether events of this license wait in the queue: then what comes goes behind them."""
        seen = self._reader.look_up_isolated([_ask(operation)], self._clock.now(), fully=False)
        try:
            if seen is None:
                # While the copy is made anew, whose events these are is not known: every call goes behind them.
                return self._open().stats().pending > 0
            holding = seen[0].known.holding
            return holding is not None and self._open().holds(holding.license.id)
        except QueueError:
            return False

    def _flush(self, operations: list[Operation]) -> Outcomes:
        try:
            outcomes = self._flush_or_raise(operations)
        except LedgerUnavailable as error:
            outcomes = [error] * len(operations)
        return [
            operation.busy if isinstance(outcome, LedgerUnavailable) and operation.busy is not None else outcome
            for operation, outcome in zip(operations, outcomes, strict=True)
        ]

    def _flush_or_raise(self, operations: list[Operation]) -> Outcomes:
        try:
            return self._batch(operations)
        except (LockTimeout, OSError) as error:
            raise LedgerUnavailable(f"the queue cannot be used: {error}") from error
        except QueueFull as error:
            if len(operations) == 1:
                raise QueueIsFull(str(error)) from error
        except QueueError as error:
            raise LedgerUnavailable(f"neither the ledger nor this node's queue takes anything: {error}") from error
        # One license at its limit must not cost the others of its batch their answer.
        return [self._alone(operation) for operation in operations]

    def _alone(self, operation: Operation) -> Outcome | BaseException:
        try:
            return self._flush_or_raise([operation])[0]
        except (QueueIsFull, LedgerUnavailable) as error:
            return error

    def _batch(self, operations: list[Operation]) -> Outcomes:
        if not any(operation.call.act in WRITING_ACTS for operation in operations):
            decided = self._decide(operations)
            if not decided.batch.changes:  # a license that runs from its first validation is changed by that
                return self._kept(decided)
        with self._one:
            return self._kept(self._decide(operations))

    def _decide(self, operations: list[Operation]) -> _Decided:
        now = self._clock.now()
        position = self._reader.usable(now)
        if position is None:
            raise LedgerUnavailable("there is no copy of the ledger young enough to answer from")
        known = self._known(operations, now)
        unit = UnitOfWork(self._node, now, {}, isolated=True)
        unit.load([answer for answer, _ in known])
        outcomes = [
            unit.write_isolated(operation, answer, as_of)
            for operation, (answer, as_of) in zip(operations, known, strict=True)
        ]
        seqs = {answer.holding.license.id: answer.seq for answer, _ in known if answer.holding is not None}
        return _Decided(position.ledger_id, outcomes, unit.batch(), seqs)

    def _kept(self, decided: _Decided) -> Outcomes:
        """Puts the events into the queue and their changes into the snapshot, then gives the outcomes."""
        batch = decided.batch
        if batch.events:
            self._breaker.will_queue()
            self._open().append([to_row(event) for event in batch.events], ledger=decided.ledger_id)
            # Again: the supervisor may have found the queue empty in between, and would let later calls overtake these.
            self._breaker.will_queue()
            changes = [(change, decided.seqs[change.after.license.id]) for change in batch.changes]
            self._reader.put_own(changes, queued=True)
        return decided.outcomes

    def _known(self, operations: Sequence[Operation], now: float) -> list[tuple[LicenseRecord, float]]:
        """What the snapshot has of each, and what this node's queue has of the same call."""
        retried = [operation.event_id for operation in operations if operation.body_hash is not None]
        earlier = {id: from_row(row) for id, row in self._open().find(retried).items()} if retried else {}
        # The counts that the snapshot keeps do for calls that change none.
        fully = any(operation.call.act in WRITING_ACTS for operation in operations)
        seen = self._reader.look_up_isolated([_ask(operation) for operation in operations], now, fully=fully)
        if seen is None:
            raise LedgerUnavailable("there is no copy of the ledger young enough to answer from")
        return [_with(one, earlier.get(operation.event_id)) for one, operation in zip(seen, operations, strict=True)]

    def _open(self) -> EventQueue:
        with self._opening:
            if self._queue is None:
                self._queue = EventQueue(self._path)
            return self._queue


def _with(seen: SnapshotRecord, earlier: Event | None) -> tuple[LicenseRecord, float]:
    if earlier is None:
        return seen.known, seen.as_of
    return msgspec.structs.replace(seen.known, recorded=earlier.data, recorded_at=earlier.occurred_at), seen.as_of


def _ask(operation: Operation) -> LicenseQuery:
    return LicenseQuery(operation.key_hash, operation.call.fingerprint)
