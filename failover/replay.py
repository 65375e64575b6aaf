"""Replay: sends a queue's events on, in order and in batches, until the ledger has every one of them once.

The handler applies a batch in one transaction, each event once by its `event_id`; so a batch whose commit is in doubt
is simply sent again. One that is not taken is halved until the event is found that is in the way; that one waits, with
what comes after it under its key, and the others go on. Which refusals count against an event: `failover.proof`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from filelock import FileLock
from filelock import Timeout as LockTimeout

from failover.errors import FailoverError, NotTaken, Refused
from failover.proof import is_proven
from failover.queue import EventQueue, Queued

_log = logging.getLogger("protecao.failover.replay")

#: Applies all events of one origin, in order, idempotently, and returns once they are committed. Raises `Refused` and
#: `NotTaken` as they say; anything else ends the run, and means the same again, later.
Handler = Callable[[str, Sequence[Queued]], None]

#: After so many keys in a row whose events are not taken, a run ends: it would find the same of all the others.
_ENOUGH = 8
#: A run that meets refusals ends after so many seconds. Each may have cost a time-out.
_PATIENCE_S = 3.0


def _ignore_dead(queued: Queued, reason: str) -> None:
    """For a queue whose dead events are looked at in its file."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one run did: events taken; refused by proof; set aside for good; not taken, which counts as no try."""

    synced: int = 0
    refused: int = 0
    dead: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """What keeps events in the queue: why the last one was not taken, and since when any were not (monotonic).

    `everything`: events of several keys were sent, and none was taken.
    """

    reason: str
    since: float
    everything: bool


@dataclass(slots=True)
class _Waiting:
    """A key whose first event is not taken. `answered`: the database refused it, rather than the connection failed."""

    reason: str
    since: float
    answered: bool


@dataclass(slots=True)
class _Run:
    """One run so far. `failed`: by key, the event that was not taken, and why; `freed`: keys that wait no more."""

    began: float
    synced: int = 0
    refused: int = 0
    dead: int = 0
    in_a_row: int = 0
    stopped: bool = False
    freed: bool = False
    taken: set[str] = field(default_factory=set)
    failed: dict[str, tuple[Queued, FailoverError]] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)

    def done(self) -> Replayed:
        return Replayed(self.synced, self.refused, self.dead, len(self.failed) - len(self.judged))


class Replay:
    """Runs a queue through `handler`, at most `batch` events at a time; `tries` refusals and an event is set aside."""

    def __init__(
        self,
        queue: EventQueue,
        handler: Handler,
        *,
        batch: int = 500,
        tries: int = 5,
        on_dead: Callable[[Queued, str], None] = _ignore_dead,
        ledger: Callable[[], str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_dead`: called with each event before it is set aside, and the reason; what it raises puts that off.

        `ledger`: asked at each run for the name of the one that `handler` writes to; another's events never go there.
        """
        self._queue = queue
        self._on_dead = on_dead
        self._ledger = ledger
        self._handler = handler
        self._batch = self._size = batch
        self._tries = tries
        self._monotonic = monotonic
        self._waiting: dict[str, _Waiting] = {}
        self._takes_nothing = False
        # Two runs at once would each send what the other has sent, in an order of their own.
        self._lock = FileLock(f"{queue.path}.replay.lock", timeout=0, thread_local=False)

    @property
    def held(self) -> Held | None:
        """What keeps events in the queue as of the last run; None where nothing does, or the ledger is away."""
        waiting = [one for one in tuple(self._waiting.values()) if one.answered]
        if not waiting:
            return None
        return Held(waiting[-1].reason, min(one.since for one in waiting), self._takes_nothing)

    def run(self) -> Replayed:
        """Replays what is pending. Raises what the handler or `ledger` raised other than `Refused` and `NotTaken`.

        Where an event is not taken the others go on, but for those of its key: they stay behind it. A run while
        another is under way does nothing.
        """
        try:
            self._lock.acquire()
        except LockTimeout:
            return Replayed()
        try:
            return self._run()
        finally:
            self._lock.release()

    def _run(self) -> Replayed:
        if self._ledger is not None:
            self._queue.belong_to(self._ledger())
        run = _Run(self._monotonic())
        while self._pass(run):
            pass
        self._takes_nothing = len(run.failed) > 1 and not run.taken
        return run.done()

    def _pass(self, run: _Run) -> bool:
        """Once through the queue, then once more to those that waited before; gives whether it is worth another."""
        run.freed = False
        heads = self._send_others(run)
        if not run.stopped:
            retried = [heads[key] for key in self._waiting if key in heads and key not in run.failed]
            self._waiting = {key: one for key, one in self._waiting.items() if key in heads or key in run.failed}
            self._send(retried, run, run.failed)
        self._judge(run)
        return run.freed and not run.stopped

    def _send_others(self, run: _Run) -> dict[str, Queued]:
        """Sends all whose key does not wait; gives the first event of each key that does."""
        after, heads = 0, dict[str, Queued]()
        while not run.stopped and (rows := self._queue.pending(self._batch, after, self._note_dead)):
            after = rows[-1].position
            for queued in rows:
                if _key(queued) in self._waiting:
                    heads.setdefault(_key(queued), queued)
            self._send(rows, run, self._waiting)
        return heads

    def _send(self, rows: Sequence[Queued], run: _Run, skipped: Container[str]) -> None:
        """In batches, which are halved where one is not taken and grow again behind the event in the way."""
        # Of the first `suspects` in `rest`, one is in the way.
        rest, suspects = list(rows), 0
        while rest and not run.stopped:
            size = self._size
            batch, rest = [queued for queued in rest[:size] if _key(queued) not in skipped], rest[size:]
            if not batch:
                continue
            error = self._take(batch, run)
            if error is None:
                suspects = max(0, suspects - size)
                if not suspects:
                    self._size = min(self._batch, 2 * self._size)
            elif len(batch) > 1:
                first, second = _parted(batch)
                self._size, rest = len(first), first + second + rest
                suspects = len(batch) if len(first) > 1 else 0
            else:
                suspects = 0
                self._leave_waiting(batch[0], error, run)
            run.stopped = run.stopped or (error is not None and self._monotonic() - run.began > _PATIENCE_S)

    def _take(self, batch: Sequence[Queued], run: _Run) -> FailoverError | None:
        """The batch as one: None, or why it was not taken."""
        try:
            self._handler(self._queue.origin, batch)
        except (Refused, NotTaken) as error:
            return error
        except Exception as error:
            self._try_less(batch, error)
            raise
        self._queue.acknowledge([queued.position for queued in batch])
        run.synced += len(batch)
        run.in_a_row = 0
        for queued in batch:
            run.taken.add(queued.event.kind)
            run.freed = self._waiting.pop(_key(queued), None) is not None or run.freed
        return None

    def _try_less(self, batch: Sequence[Queued], error: Exception) -> None:
        """The next run is to find out whether it was the batch that broke the way, by less of it and by another key."""
        self._size = max(1, len(batch) // 2)
        if len(batch) == 1 and batch[0].event.key:
            self._wait(_key(batch[0]), str(error), answered=False)

    def _leave_waiting(self, queued: Queued, error: FailoverError, run: _Run) -> None:
        key = _key(queued)
        run.failed[key] = queued, error
        run.in_a_row += 1
        run.stopped = run.in_a_row >= _ENOUGH
        self._wait(key, str(error), answered=True)

    def _wait(self, key: str, reason: str, *, answered: bool) -> None:
        before = self._waiting.pop(key, None)  # put behind those that have not been tried for longer
        since = before.since if before is not None and before.answered else self._monotonic()
        is_new = (before is None or before.reason != reason) and not self._is_already_logged(reason)
        self._waiting[key] = _Waiting(reason, since, answered)
        if is_new and answered:
            _log.warning("an event was not taken", extra={"reason": reason})

    def _is_already_logged(self, reason: str) -> bool:
        """Whether the reason has been logged: one line, however many keys wait for it."""
        return any(one.reason == reason for one in self._waiting.values())

    def _judge(self, run: _Run) -> None:
        """Counts a try against each event that is proven to be at fault, and sets aside those that have had enough."""
        for key, (queued, error) in run.failed.items():
            if key in run.judged or not is_proven(error, queued.event.kind, run.taken, len(run.failed)):
                continue
            run.judged.add(key)
            tries = self._queue.count_try(queued.position, str(error))
            if tries >= self._tries and self._note_dead(queued, str(error)):
                self._queue.set_aside(queued.position, str(error))
                self._waiting.pop(key, None)
                run.dead += 1
                run.freed = True
            else:
                run.refused += 1

    def _note_dead(self, queued: Queued, reason: str) -> bool:
        """Whether it was noted, so that it may be set aside."""
        try:
            self._on_dead(queued, reason)
        except Exception as error:
            _log.warning("an event cannot be set aside yet", extra={"position": queued.position, "reason": str(error)})
            return False
        return True


def _key(queued: Queued) -> str:
    """The key whose order the event is in; an event without a key holds up no other."""
    return queued.event.key or f"#{queued.position}"


def _parted(batch: Sequence[Queued]) -> tuple[list[Queued], list[Queued]]:
    """Half of the keys' events, and the others'; of one key's events the first, behind which the others may wait.

    So the key in the way is found in as many steps as there are keys to halve, however many events each has.
    """
    keys = list(dict.fromkeys(map(_key, batch)))
    if len(keys) == 1:
        return list(batch[:1]), list(batch[1:])
    chosen = set(keys[: (len(keys) + 1) // 2])
    return [one for one in batch if _key(one) in chosen], [one for one in batch if _key(one) not in chosen]
