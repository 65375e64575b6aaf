"""Group commit: one flush at a time, and all calls that come meanwhile go with the next one.

While one flush is under way, new calls wait in the backlog; when it ends, the whole backlog (up to `max_batch`) is the
next batch. So one call alone pays one flush, and many calls share one, without a timer. One thread flushes, finishes
each result, and then completes all calls one after the other: that costs less than threads that wake and take the
interpreter from one another, and no call needs a thread to wait with. A call that another lane has to carry is handed
on to that lane's batcher, its caller still waiting.
Source of the idea: DeWitt et al., "Implementation techniques for main memory database systems", 1984.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from api.server.threads import Threads

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Final = TypeVar("Final")

#: One flush: a result for each item, in order, or an exception instance for those that failed.
Flush = Callable[[list[Item]], Sequence[Result | BaseException]]
#: Is given what became of a call, or the exception instance that it ended with.
Done = Callable[[Final | BaseException], None]
#: The lane that carries a call next, and the call as that lane takes it; None: the outcome is the caller's.
NextLane = Callable[[Item, Result | BaseException], "tuple[Batcher[Item, Result], Item] | None"]

#: How often, within the patience of one call, the backlog is checked for calls that have waited too long.
_LOOKS = 10


def identity(result: Final) -> Final:
    """For callers with nothing left to do."""
    return result


def wait_for_result(begin: Callable[[Done[Final]], None]) -> Final:
    """What `begin` gives to the callback that it is called with, waited for. Raises what is an exception."""
    outcomes: list[Final | BaseException] = []
    # A bare lock, taken: releasing it wakes the waiter. An Event costs ten times as much.
    turn = threading.Lock()
    turn.acquire()

    def done(outcome: Final | BaseException) -> None:
        outcomes.append(outcome)
        turn.release()

    begin(done)
    turn.acquire()
    if isinstance(outcomes[0], BaseException):
        raise outcomes[0]
    return outcomes[0]


def forward_errors(begin: Callable[[Done[Final]], None], done: Done[Final]) -> None:
    """Calls `begin(done)`; what it raises goes to `done` as well, for a caller that has left by then."""
    try:
        begin(done)
    except Exception as error:
        done(error)


class BacklogFull(Exception):
    """The backlog is full: as many calls wait as it may hold."""


class FlushTimeout(Exception):
    """The flush this caller waited for did not end in time. What it carried may yet be committed."""


class _Waiter(Generic[Item]):
    __slots__ = ("_done", "finish", "item", "outcome", "since")

    def __init__(self, item: Item, finish: Callable[[Any], object], done: Callable[[Any], None]) -> None:
        self.item = item
        self.finish = finish
        self.outcome: object = None
        self.since = time.monotonic()
        self._done = [done]

    @property
    def is_completed(self) -> bool:
        return not self._done

    def complete(self, outcome: object) -> None:
        """Gives the caller its outcome, unless it already has one."""
        try:
            done = self._done.pop()  # one step for the interpreter: of two threads one has it
        except IndexError:
            return
        try:
            done(outcome)
        except BaseException:
            _log.exception("a caller could not be told what became of its call")

    def finished(self) -> object:
        """What the caller gets: `finish`'s result, or the exception that ended the call."""
        if self.is_completed or isinstance(self.outcome, BaseException):
            return self.outcome
        try:
            return self.finish(self.outcome)
        except BaseException as error:
            return error


class _Batch(Generic[Item]):
    """The calls whose flush is under way, and since when."""

    __slots__ = ("since", "waiters")

    def __init__(self, waiters: list[_Waiter[Item]]) -> None:
        self.since = time.monotonic()
        self.waiters = waiters

    def end(self) -> None:
        """Completes each call. All are finished first: completing a call wakes its caller."""
        finished = [(waiter, waiter.finished()) for waiter in self.waiters]
        for waiter, outcome in finished:
            waiter.complete(outcome)


def last_lane(_item: object, _outcome: object) -> None:
    """For a lane whose outcomes all are the callers'."""


class Batcher(Generic[Item, Result]):
    """Runs `flush` for callers in batches of at most `max_batch`; at most `max_waiting` calls may wait in the backlog.

    A flush that raises `fails_backlog` fails the calls in the backlog as well: they would meet the same error.
    """

    def __init__(
        self,
        flush: Flush[Item, Result],
        *,
        max_batch: int,
        max_waiting: int,
        patience_s: float,
        fails_backlog: type[Exception] | tuple[()] = (),
        next_lane: NextLane[Item, Result] = last_lane,
        background: bool = True,
    ) -> None:
        """Without `background` no thread is started: a caller that finds no flush under way flushes on its own thread.

        `begin` then may block for as long as flushes take, and no call is given up before its flush has ended.
        """
        self._flush = flush
        self._next_lane = next_lane
        self._fails_line = fails_backlog
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._threads = Threads("batcher") if background else None
        self._lock = threading.Lock()
        self._backlog: deque[_Waiter[Item]] = deque()
        self._batch: _Batch[Item] | None = None
        self._flushing = False
        self._watched = False

    def submit(self, item: Item, finish: Callable[[Result], Final]) -> Final:
        """As `begin`, waited for: gives what `finish` made of the result, or raises the exception that `done` gets."""

        def begin(done: Done[Final]) -> None:
            self.begin(item, finish, done)

        return wait_for_result(begin)

    def begin(self, item: Item, finish: Callable[[Result], Final], done: Done[Final]) -> None:
        """Adds `item` to the backlog without blocking; raises `BacklogFull` at once where too many calls wait.

        `done` is called once, on whichever thread flushes: with what `finish` made of the result, after the flush that
        carried it; with what the flush raised or gave for `item`, or `finish` raised; or, `patience_s` after this, with
        `FlushTimeout`. It must not block, and what it raises is only logged.
        """
        self.enqueue(_Waiter(item, finish, done))

    def enqueue(self, waiter: _Waiter[Item]) -> None:
        """Adds a new call to the backlog, or one that another lane has handed on. Raises `BacklogFull`."""
        with self._lock:
            if len(self._backlog) >= self._max_waiting:
                raise BacklogFull
            self._backlog.append(waiter)
            leads_itself = self._threads is None and not self._flushing
            if self._threads is None:
                self._flushing = True
            else:
                self._call_threads(self._threads)
        if leads_itself:
            self._lead()

    def longest(self, now: float) -> float:
        """For how many seconds at `now` (monotonic) the batch under way has been; 0 where none is."""
        batch = self._batch
        return 0.0 if batch is None else now - batch.since

    def give_up(self, now: float) -> None:
        """Completes with `FlushTimeout` the calls that at `now` (monotonic) have waited too long."""
        until = now - self._patience_s
        overdue = []
        with self._lock:
            while self._backlog and self._backlog[0].since <= until:
                overdue.append(self._backlog.popleft())
            if self._batch is not None:
                overdue += [waiter for waiter in self._batch.waiters if waiter.since <= until]
        for waiter in overdue:
            waiter.complete(FlushTimeout())

    def _call_threads(self, threads: Threads) -> None:
        """To be called under the lock, for a call that was just added."""
        if not self._flushing:
            self._flushing = threads.run(self._lead)
        if not self._watched:
            self._watched = threads.run(self._watch)
        if not (self._flushing or self._watched):
            # The system gives no thread, so this caller would never be completed.
            self._backlog.pop()
            raise BacklogFull

    def _lead(self) -> None:
        """Flushes batch after batch until the backlog is empty."""
        while (batch := self._next()) is not None:
            self._carry(batch)
            batch.waiters = [waiter for waiter in batch.waiters if not self._hand_on(waiter)]
            batch.end()

    def _hand_on(self, waiter: _Waiter[Item]) -> bool:
        """Whether another lane carries this call next. Its patience begins anew there."""
        try:
            step = None if waiter.is_completed else self._next_lane(waiter.item, waiter.outcome)  # type: ignore[arg-type]
            if step is None:
                return False
            lane, waiter.item = step
            waiter.since = time.monotonic()
            lane.enqueue(waiter)
        except Exception as error:
            waiter.outcome = error
            return False
        return True

    def _next(self) -> _Batch[Item] | None:
        with self._lock:
            waiters = [self._backlog.popleft() for _ in range(min(len(self._backlog), self._max_batch))]
            self._batch = _Batch(waiters) if waiters else None
            self._flushing = bool(waiters)
            return self._batch

    def _carry(self, batch: _Batch[Item]) -> None:
        try:
            outcomes = self._flush([waiter.item for waiter in batch.waiters])
            for waiter, outcome in zip(batch.waiters, outcomes, strict=True):
                waiter.outcome = outcome
        except BaseException as error:
            if isinstance(error, self._fails_line):
                with self._lock:
                    batch.waiters += self._backlog
                    self._backlog.clear()
            for waiter in batch.waiters:
                waiter.outcome = error

    def _watch(self) -> None:
        """Watches for calls that have waited too long; runs in a thread while any call waits."""
        watched = True
        while watched:
            time.sleep(self._patience_s / _LOOKS)
            self.give_up(time.monotonic())
            with self._lock:
                watched = self._watched = bool(self._backlog) or self._batch is not None
