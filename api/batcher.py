"""Group commit without a thread of its own: the first waiter of a batch flushes it for all.

While one flush is on its way, those who come wait in line; when it ends, the first of them takes the whole line
(up to `max_batch`) along. So one caller alone pays one flush, and many callers share one, without a timer.
What is still to be done with each result, its flusher does for all as well, while the next flush is on its way: a
thread at work costs less than many that wake and take the interpreter from one another.
Source of the idea: DeWitt et al., "Implementation techniques for main memory database systems", 1984.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")
Final = TypeVar("Final")

#: One flush: a result for each item, in order, or an exception instance for those that failed.
Flush = Callable[[list[Item]], Sequence[Result | BaseException]]


def as_it_is(result: Final) -> Final:
    """For callers of `Batcher.submit` with nothing left to do."""
    return result


class LineFull(Exception):
    """More callers wait than the line may hold."""


class FlushTimeout(Exception):
    """The flush this caller waited for did not end in time. What it carried may yet be committed."""


class _Waiter(Generic[Item, Result]):
    __slots__ = ("finish", "item", "leads", "outcome", "turn")

    def __init__(self, item: Item, finish: Callable[[Result], object]) -> None:
        self.item = item
        self.finish = finish
        self.outcome: object = None
        self.leads = False
        # A bare lock, taken: releasing it wakes the waiter. An Event costs ten times as much.
        self.turn = threading.Lock()
        self.turn.acquire()


class Batcher(Generic[Item, Result]):
    """Runs `flush` for callers in batches of at most `max_batch`; at most `max_waiting` may stand in line.

    A flush that raises `fails_line` fails for those still in line as well: they would only meet the same.
    """

    def __init__(
        self,
        flush: Flush[Item, Result],
        *,
        max_batch: int,
        max_waiting: int,
        patience_s: float,
        fails_line: type[Exception] | tuple[()] = (),
    ) -> None:
        self._flush = flush
        self._fails_line = fails_line
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._line: deque[_Waiter[Item, Result]] = deque()
        self._flushing = False

    def submit(self, item: Item, finish: Callable[[Result], Final]) -> Final:
        """What `finish` makes of the result for `item`, after the flush that carried it, on the flusher's thread.

        Raises what the flush raised or gave for `item`, or what `finish` raised.

        Raises `LineFull` at once where too many wait, `FlushTimeout` after `patience_s` seconds in line.
        """
        waiter: _Waiter[Item, Result] = _Waiter(item, finish)
        with self._lock:
            if len(self._line) >= self._max_waiting:
                raise LineFull
            self._line.append(waiter)
            if not self._flushing:
                self._flushing = waiter.leads = True
        if not waiter.leads and not waiter.turn.acquire(timeout=self._patience_s):
            self._give_up(waiter)
        if waiter.leads:
            self._lead()
        if isinstance(waiter.outcome, BaseException):
            raise waiter.outcome
        return waiter.outcome  # type: ignore[return-value]

    def _lead(self) -> None:
        with self._lock:
            batch = [self._line.popleft() for _ in range(min(len(self._line), self._max_batch))]
        try:
            outcomes = self._flush([waiter.item for waiter in batch])
            for waiter, outcome in zip(batch, outcomes, strict=True):
                waiter.outcome = outcome
        except BaseException as error:
            if isinstance(error, self._fails_line):
                batch += self._clear_line()
            for waiter in batch:
                waiter.outcome = error
        finally:
            self._hand_over()
            for waiter in batch:
                _finish(waiter)
                waiter.turn.release()

    def _clear_line(self) -> list[_Waiter[Item, Result]]:
        with self._lock:
            cleared = list(self._line)
            self._line.clear()
        return cleared

    def _hand_over(self) -> None:
        """Makes the first in line the next to flush, or leaves the place free for whoever comes."""
        with self._lock:
            if not self._line:
                self._flushing = False
                return
            self._line[0].leads = True
            self._line[0].turn.release()

    def _give_up(self, waiter: _Waiter[Item, Result]) -> None:
        with self._lock:
            if waiter.leads:
                waiter.turn.acquire()  # its turn came in the same instant, and the others wait for it
                return
            if waiter in self._line:
                self._line.remove(waiter)
        raise FlushTimeout


def _finish(waiter: _Waiter[Item, Result]) -> None:
    if isinstance(waiter.outcome, BaseException):
        return
    try:
        waiter.outcome = waiter.finish(cast(Result, waiter.outcome))
    except BaseException as error:
        waiter.outcome = error
