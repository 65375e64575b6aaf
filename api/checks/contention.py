"""Finds the license whose lock or slow statement blocks a batch, and carries the rest of the batch on.

Isolation is a property of the ledger, not of a call. So a batch that is blocked or too slow is first held against the
tables: where those are locked for every call, the ledger is away for all. Otherwise the batch is taken apart until the
license is found whose lock or slow statement it was. Its calls end with `LedgerBusy`, and go alone for a while.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, count

from api.checks.unit_of_work import Operation, Outcome
from api.ledger.errors import (
    LedgerBusy,
    LedgerDropped,
    LedgerError,
    LedgerRefused,
    LedgerSlow,
    LedgerUnavailable,
    NoConnection,
)
from api.node.clock import Clock

Outcomes = list[Outcome | BaseException]
#: Carries out a batch; `hurried`: each statement within a fraction of its usual time.
Work = Callable[[Sequence[Operation], bool], Outcomes]

#: Into so many parts a batch is taken apart: the good ones cost little, and the bad one is found in three steps.
_PARTS = 4
#: By this many budgets after it began, a batch has been taken apart: what is still in it is busy.
_LONGEST = 1.5
#: How long (seconds) the calls of a license that was in the way go alone.
_ALONE_S = 10.0
_ALONE_MAX = 1_000
_TRIES, _PAUSE_S = 5, 0.01


class Contention:
    """What one process knows of licenses whose locks hold up others. `budget_s`: how long a call may wait for them."""

    def __init__(self, clock: Clock, budget_s: float, is_blocked: Callable[[], bool]) -> None:
        """`is_blocked`: asks the ledger whether others keep every call from being recorded."""
        self._monotonic = clock.monotonic
        self._budget_s = budget_s
        self._is_blocked = is_blocked
        self._alone: dict[str, float] = {}

    def goes_alone(self, operation: Operation) -> bool:
        """Whether this call's license was in the way of others a moment ago."""
        return self._monotonic() < self._alone.get(operation.key_hash, 0.0)

    def carried(self, work: Work, operations: Sequence[Operation]) -> Outcomes:
        """What `work` makes of the batch, or of its parts. Raises `LedgerUnavailable` where the ledger is away."""
        until = self._monotonic() + _LONGEST * self._budget_s
        try:
            return work(operations, False)
        except NoConnection as error:
            return [error] * len(operations)  # nothing was asked: nothing is known of any of them
        except LedgerSlow as error:
            return self._in_parts(work, operations, error, until)
        except LedgerBusy as error:
            if self._is_blocked():
                raise LedgerUnavailable("its tables are locked by others") from error
            # What it waited for may be free by now: there is time for one more try, of all or part by part.
            return self._once_more(work, operations, error, until)
        except Exception as error:
            return _each(work, operations, error)

    def carried_alone(self, work: Work, operations: Sequence[Operation]) -> Outcomes:
        """As `carried`, for licenses that were in the way: each on its own, in turn, until the budget is over."""
        until = self._monotonic() + self._budget_s
        found: dict[int, Outcome | BaseException] = {}
        waiting = _by_license(operations)
        for attempt in count(1):
            waiting = [places for places in waiting if not self._tried(work, operations, places, found)]
            if not waiting or self._monotonic() >= until:
                break
            _pause(attempt)
        if waiting:
            found |= dict.fromkeys(chain.from_iterable(waiting), self._still_busy(operations, waiting))
        return [found[place] for place in range(len(operations))]

    def _still_busy(self, operations: Sequence[Operation], waiting: list[list[int]]) -> LedgerError:
        """Why the calls at `waiting` were not carried out: tables that are locked, or their licenses."""
        try:
            if self._is_blocked():
                return LedgerUnavailable("its tables are locked by others")
        except LedgerError as error:
            return error
        for places in waiting:
            self._is_in_the_way(operations[places[0]])
        return LedgerBusy("others hold the license")

    def _tried(
        self, work: Work, operations: Sequence[Operation], places: list[int], found: dict[int, Outcome | BaseException]
    ) -> bool:
        """Whether there is an outcome for the calls at `places`, which are one license's."""
        try:
            outcomes = work([operations[place] for place in places], True)
        except LedgerSlow as error:
            self._is_in_the_way(operations[places[0]])
            outcomes = [error] * len(places)
        except LedgerBusy:
            return False
        except Exception as error:
            outcomes = _each(work, [operations[place] for place in places], error)
        found |= zip(places, outcomes, strict=True)
        return True

    def _once_more(self, work: Work, operations: Sequence[Operation], error: LedgerBusy, until: float) -> Outcomes:
        if self._monotonic() >= until:
            return [error] * len(operations)
        try:
            return work(operations, True)
        except LedgerBusy as still:
            return self._in_parts(work, operations, still, until)
        except Exception as refused:
            return _each(work, operations, refused)

    def _in_parts(self, work: Work, operations: Sequence[Operation], error: LedgerBusy, until: float) -> Outcomes:
        """Each part is tried before any part of one, so that a slow machine has the time for all the good ones."""
        found: dict[int, Outcome | BaseException] = {}
        failed = deque([(_by_license(operations), error)])
        while failed:
            licenses, busy = failed.popleft()
            nothing_asked, is_one = isinstance(busy, NoConnection), len(licenses) == 1
            if is_one and not nothing_asked:
                self._is_in_the_way(operations[licenses[0][0]])
            if is_one or nothing_asked or self._monotonic() >= until:
                found |= dict.fromkeys(chain.from_iterable(licenses), busy)
                continue
            for part in _parts(licenses):
                try:
                    found |= _part(work, operations, part)
                except LedgerBusy as still:
                    failed.append((part, still))
        return [found[place] for place in range(len(operations))]

    def _is_in_the_way(self, operation: Operation) -> None:
        if len(self._alone) >= _ALONE_MAX:
            self._alone.clear()
        self._alone[operation.key_hash] = self._monotonic() + _ALONE_S


def _each(work: Work, operations: Sequence[Operation], error: Exception) -> Outcomes:
    """One call that the ledger does not take or keep, or its driver cannot send, costs no other its answer.

    Raises `error` where it speaks of the ledger.
    """
    if isinstance(error, LedgerError) and not isinstance(error, (LedgerRefused, LedgerDropped)):
        raise error
    return [error] if len(operations) == 1 else [_by_itself(work, operation) for operation in operations]


def _by_itself(work: Work, operation: Operation) -> Outcome | BaseException:
    try:
        return work([operation], False)[0]
    except Exception as error:
        return error


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(attempt, _TRIES) * _PAUSE_S))  # noqa: S311 - only spreads the retries


def _by_license(operations: Sequence[Operation]) -> list[list[int]]:
    """The places of each license's calls, in their order."""
    places: dict[str, list[int]] = {}
    for place, operation in enumerate(operations):
        places.setdefault(operation.key_hash, []).append(place)
    return list(places.values())


def _parts(licenses: list[list[int]]) -> list[list[list[int]]]:
    """All these licenses' calls in a few parts."""
    size = -(-len(licenses) // _PARTS)
    return [licenses[at : at + size] for at in range(0, len(licenses), size)]


def _part(work: Work, operations: Sequence[Operation], licenses: list[list[int]]) -> dict[int, Outcome | BaseException]:
    """The outcomes of these licenses' calls, by place. Raises `LedgerBusy` where one of them is in the way."""
    places = [*chain.from_iterable(licenses)]
    part = [operations[place] for place in places]
    try:
        outcomes = work(part, True)
    except LedgerBusy:
        raise
    except Exception as error:
        outcomes = _each(work, part, error)
    return dict(zip(places, outcomes, strict=True))
