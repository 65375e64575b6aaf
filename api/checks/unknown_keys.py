"""Keeps unknown keys from costing the ledger: a negative cache of 5 s, and at most 20 look-ups a second a node.

A key that this process or its node's snapshot knows never waits. Any other takes a place first and gives it back when
it turns out to be known, so only unknown keys use places up. While the snapshot is being made it cannot tell, and
most callers are customers: then any number may wait for a place.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from api.node.change_marks import ChangeMarks

_LOOK_UPS_PER_S = 20
_NEGATIVE_CACHE_S = 5.0
_NEGATIVE_CACHE_MAX = 10_000
_KNOWN_MAX = 20_000
#: Each one who waits holds a thread that customers need.
_WAITING_MAX = 4


class TooManyUnknown(Exception):
    """No place came free in time, or too many wait: this node is being asked for many unknown keys."""


def _no_snapshot(_key_hash: str) -> bool | None:
    """For a node that keeps no snapshot."""
    return False


def _no_limit() -> None:
    """For callers whose failures are not counted."""


class UnknownKeys:
    """One per worker; the node's budget is shared out evenly among its `workers`."""

    def __init__(
        self,
        changes: ChangeMarks,
        workers: int,
        monotonic: Callable[[], float],
        *,
        is_known: Callable[[str], bool | None] = _no_snapshot,
        patience_s: float = 1.0,
    ) -> None:
        """`is_known`: what the node's snapshot says of a key's hash, None while it cannot tell."""
        self._is_known = is_known
        self._changes = changes
        self._places = max(1, _LOOK_UPS_PER_S // workers)
        self._window_s = max(1.0, self._places * workers / _LOOK_UPS_PER_S)
        self._monotonic = monotonic
        self._patience_s = patience_s
        #: When each place was taken, the longest taken first; a place is free again when `_window_s` have gone by.
        self._taken: deque[float] = deque()
        self._freed = threading.Condition()
        self._waiting = 0
        self._known: OrderedDict[str, None] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[float, float, int]] = OrderedDict()

    def negative_cache_hit(self, key_hash: str) -> float | None:
        """When (ledger time) this key was last found to be unknown, if that was just now and no key was made since."""
        found = self._unknown.get(key_hash)
        if found is None:
            return None
        at, forget_at, changes = found
        if self._monotonic() >= forget_at or changes != self._changes.key_changes:
            self._unknown.pop(key_hash, None)
            return None
        return at

    def knows(self, key_hash: str) -> bool:
        """Whether a call with this key needs no place, and waits for none."""
        if self.negative_cache_hit(key_hash) is not None:
            return False
        return key_hash in self._known or self._is_known(key_hash) is True

    def enter(self, key_hash: str, before_waiting: Callable[[], None] = _no_limit) -> float | None:
        """Call before a look-up; gives the place it takes, if any.

        `before_waiting` raises where this caller is not to wait for a place. Raises `TooManyUnknown` after a second's
        wait, and at once where four are waiting and the snapshot can tell who is a customer.
        """
        if key_hash in self._known:
            return None
        known = self._is_known(key_hash)
        if known:
            return None
        with self._freed:
            place = None if self._waiting else self._take()  # who waits comes first
        if place is not None:
            return place
        before_waiting()
        return self._wait(waiting_max=_WAITING_MAX if known is False else None)

    def found(self, key_hash: str, place: float | None) -> None:
        """The key is known: the place it took, if any, is free again."""
        if place is None and key_hash in self._known:
            return
        with self._freed:
            self._known[key_hash] = None
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
            if place is not None:
                with contextlib.suppress(ValueError):
                    self._taken.remove(place)
                self._freed.notify()

    def missed(self, key_hash: str, at: float, changes: int) -> None:
        """The key is unknown as of `at` (ledger time); `changes` is `key_changes` as read before the look-up."""
        with self._freed:
            self._known.pop(key_hash, None)
            self._unknown[key_hash] = (at, self._monotonic() + _NEGATIVE_CACHE_S, changes)
            if len(self._unknown) > _NEGATIVE_CACHE_MAX:
                self._unknown.popitem(last=False)

    def _wait(self, waiting_max: int | None) -> float:
        deadline = self._monotonic() + self._patience_s
        with self._freed:
            if waiting_max is not None and self._waiting >= waiting_max:
                raise TooManyUnknown
            self._waiting += 1
            try:
                while (place := self._take()) is None:
                    now = self._monotonic()
                    if now >= deadline:
                        raise TooManyUnknown
                    self._freed.wait(min(deadline, self._taken[0] + self._window_s) - now)
            finally:
                self._waiting -= 1
        return place

    def _take(self) -> float | None:
        now = self._monotonic()
        while self._taken and now - self._taken[0] >= self._window_s:
            self._taken.popleft()
        if len(self._taken) >= self._places:
            return None
        self._taken.append(now)
        return now
