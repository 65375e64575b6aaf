"""Replay: sends a queue's events on, in order and in batches, until the ledger has every one of them once.

The handler applies a batch in one transaction, each event once by its `event_id`; so a batch whose commit is in doubt
is simply sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from filelock import FileLock
from filelock import Timeout as LockTimeout

from failover.errors import Refused
from failover.queue import EventQueue, Queued

_log = logging.getLogger("protecao.failover.replay")

#: Applies all events of one origin, in order, idempotently, and returns once they are committed. Raises `Refused`
#: for a fault in the data that will be there next time too; anything else means the same again, later.
Handler = Callable[[str, Sequence[Queued]], None]


def _nobody_notes(queued: Queued, reason: str) -> None:
    """For a queue whose dead events are looked at in its file."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one run did: events taken by the handler, refused this time, set aside for good."""

    synced: int = 0
    refused: int = 0
    dead: int = 0


class Replay:
    """Runs a queue through `handler`, at most `batch` events at a time; `tries` refusals and an event is set aside."""

    def __init__(
        self,
        queue: EventQueue,
        handler: Handler,
        *,
        batch: int = 500,
        tries: int = 5,
        on_dead: Callable[[Queued, str], None] = _nobody_notes,
        ledger: Callable[[], str] | None = None,
    ) -> None:
        """`on_dead`: told of each event before it is set aside, with the reason; what it raises puts that off.

        `ledger`: asked at each run for the name of the one that `handler` writes to; another's events never go there.
        """
        self._queue = queue
        self._on_dead = on_dead
        self._ledger = ledger
        self._handler = handler
        self._batch = batch
        self._tries = tries
        # Two runs at once would each send what the other has sent, in an order of their own.
        self._lock = FileLock(f"{queue.path}.replay.lock", timeout=0, thread_local=False)

    def run(self) -> Replayed:
        """Replays what is pending. Raises what the handler or `ledger` raised other than `Refused`: later, then.

        Where an event is refused the others go on, but for those of its key: they stay behind it. A run while
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
        done, after = Replayed(), 0
        waiting: set[str] = set()
        while batch := self._queue.pending(self._batch, after):
            after = batch[-1].position
            done = _sum(done, self._send([queued for queued in batch if queued.event.key not in waiting], waiting))
        return done

    def _send(self, batch: Sequence[Queued], waiting: set[str]) -> Replayed:
        """The batch as one; one by one where something in it is refused."""
        if not batch:
            return Replayed()
        try:
            self._handler(self._queue.origin, batch)
        except Refused as error:
            if len(batch) == 1:
                return self._refused(batch[0], error, waiting)
            done = Replayed()
            for queued in batch:
                if queued.event.key not in waiting:
                    done = _sum(done, self._send([queued], waiting))
            return done
        self._queue.acknowledge([queued.position for queued in batch])
        return Replayed(synced=len(batch))

    def _refused(self, queued: Queued, error: Refused, waiting: set[str]) -> Replayed:
        tries = self._queue.count_try(queued.position, str(error))
        if tries >= self._tries:
            self._on_dead(queued, str(error))
            self._queue.set_aside(queued.position, str(error))
            return Replayed(dead=1)
        if queued.event.key:
            waiting.add(queued.event.key)
        _log.warning("an event was refused", extra={"position": queued.position, "tries": tries, "reason": str(error)})
        return Replayed(refused=1)


def _sum(a: Replayed, b: Replayed) -> Replayed:
    return Replayed(a.synced + b.synced, a.refused + b.refused, a.dead + b.dead)
