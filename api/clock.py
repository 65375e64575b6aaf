"""Ledger time on this node: the monotonic clock plus the offset that was measured against the ledger.

A node whose wall clock is an hour off gives right answers. Each sample's error is at most half its round trip
(Cristian, "Probabilistic clock synchronization", 1989); a sample replaces the one held when it is the better one,
counting what the held one may have drifted since.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds per second by which a cheap host's oscillator may drift, generously.
_DRIFT = 200e-6


class Clock:
    """`now()` in Unix seconds of ledger time. Until the first sample it is this machine's wall clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.monotonic = monotonic
        self._wall = wall
        self._offset = wall() - monotonic()
        self._error = float("inf")
        self._sampled_at = monotonic()
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.monotonic() + self._offset

    def start_from(self, wall_skew: float) -> None:
        """Takes this machine's clock to be ahead of ledger time by what it was when that was last measured."""
        with self._lock:
            if self._error == float("inf"):
                self._offset = self._wall() - wall_skew - self.monotonic()

    @property
    def wall_skew(self) -> float:
        """Seconds by which this machine's wall clock is ahead of ledger time."""
        return self._wall() - self.now()

    def sample(self, ledger_time: float, sent: float, received: float) -> None:
        """Takes in that the ledger's clock said `ledger_time` between two monotonic moments of this node."""
        error = (received - sent) / 2
        with self._lock:
            held = self._error + (received - self._sampled_at) * _DRIFT
            offset = ledger_time - (sent + received) / 2
            # Two samples that exclude each other: a clock was set, and the new one is the one that is true now.
            if error <= held or abs(offset - self._offset) > error + held:
                self._offset, self._error, self._sampled_at = offset, error, received
