"""Ledger time on this node: the monotonic clock plus the offset that was measured against the ledger.

A node whose wall clock is an hour off gives right answers. Each sample's error is at most half its round trip
(Cristian, "Probabilistic clock synchronization", 1989); a sample replaces the one held when it is the better one,
counting what the held one may have drifted since. A sample that jumps is held against this machine's own clocks
(`api.node.clock_judge`): a database whose clock was set does not take its nodes along.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from msgspec import Meta

from api.node.clock_judge import TOLERANCE_S, ClockSource, Gaps, Start, judge, judge_start, may_start_alone

#: Seconds per second by which a cheap host's oscillator may drift, generously.
_DRIFT = 200e-6
_INFINITE = float("inf")


class Dispute(NamedTuple):
    """Clocks that do not agree, as they were when that began, in Unix seconds. `ledger` None: only this machine

    has a clock, and it is behind `own`, the newest moment that was signed or recorded.
    """

    belief: ClockSource
    ledger: float | None
    own: float
    wall: float


class Clock:
    """`now()` in Unix seconds of ledger time. Until the first sample it is this machine's wall clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.monotonic = monotonic
        self._wall = wall
        self._offset = wall() - monotonic()
        self._error = _INFINITE
        self._sampled_at = monotonic()
        self._sampled = False
        self._lock = threading.Lock()
        #: What the wall clock was last known to be ahead by, None where it was never measured, and when the ledger was
        #: known before this process began.
        self._skew: float | None = None
        self._witnesses: tuple[float, ...] = ()
        #: By how much the ledger's clock is ahead of what this node goes by; 0 where it goes by that.
        self._ledger_gap = 0.0
        self._wall_gap = 0.0
        self._belief = ClockSource.LEDGER
        self._trusting = False
        #: What an operator has to see to, None where the clocks agree.
        self.dispute: Dispute | None = None

    def now(self) -> float:
        return self.monotonic() + self._offset

    def at(self, moment: float) -> float:
        """What `now` was, or will be, at a moment of the monotonic clock."""
        return moment + self._offset

    def preferred(self, ledger_time: float) -> float:
        """`ledger_time`, just read from the ledger's own clock, or `now` where the two do not agree."""
        now = self.now()
        return ledger_time if abs(ledger_time - now) <= TOLERANCE_S else now

    @property
    def is_trusted(self) -> bool:
        """Whether anything may be signed with this time: at least two clocks agree on it."""
        return self._belief is not ClockSource.UNKNOWN

    @property
    def is_decided(self) -> bool:
        """Whether a first sample was believed, or this machine's own clock was where there is no other."""
        return self._error < _INFINITE

    @property
    def wall_skew(self) -> float:
        """Seconds by which this machine's wall clock is ahead of ledger time."""
        return self._wall() - self.now()

    def start_from(self, wall_skew: float, as_of: float | None = None) -> None:
        """Takes this machine's clock to be ahead of ledger time by what it was when that was last measured, `as_of`.

        Where it says less than that moment it is not trusted, until it or a sample says more.
        """
        with self._lock:
            if self._error < _INFINITE:
                return
            self._skew = wall_skew
            self.witness_of(as_of)
            if self._sampled:
                return
            self._offset = self._wall() - wall_skew - self.monotonic()
            self._believe_alone(None if self._trusting else as_of)

    def witness_of(self, *moments: float | None) -> None:
        """Takes in moments of ledger time that the cluster is known to have reached: a first sample is held to them."""
        self._witnesses = tuple(moment for moment in moments if moment is not None) or self._witnesses

    def go_by_the_wall(self, floor: float | None) -> None:
        """For an embedded ledger, which has no other clock: trusted unless it is behind `floor`, the newest moment

        that was signed or recorded. Once it is trusted its pace is carried on, whatever becomes of it.
        """
        with self._lock:
            if self._error < _INFINITE and not self._trusting:
                return
            self._offset = self._wall() - self.monotonic()
            self._believe_alone(None if self._trusting else floor)
            self._error, self._trusting = (0.0 if self.is_trusted else _INFINITE), False

    def trust(self) -> None:
        """An operator says that the ledger's clock is right, or this machine's where it is the ledger's."""
        with self._lock:
            self._trusting = True

    def sample(self, ledger_time: float, sent: float, received: float) -> None:
        """Records that the ledger's clock showed `ledger_time` between two monotonic moments of this node."""
        error = (received - sent) / 2
        with self._lock:
            offset, self._sampled = ledger_time - (sent + received) / 2, True
            belief = self._judged(offset, error)
            if belief in (ClockSource.LEDGER, ClockSource.RESUMED):
                self._follow(offset, error, received, belief)

    def _judged(self, offset: float, error: float) -> ClockSource:
        """Whose time it is after a sample of this offset; what the judgement was made of is kept."""
        if self._trusting:
            belief = ClockSource.LEDGER
        elif self._error == _INFINITE:
            belief = self._judged_at_start(offset, error)
        else:
            gaps = Gaps(offset - self._offset, self.wall_skew, self._ledger_gap, self._wall_gap)
            belief = judge(gaps, error)
        self._dispute(belief, self.monotonic() + offset, self.now())
        if belief is ClockSource.CARRIED:
            self._ledger_gap, self._wall_gap = offset - self._offset, self.wall_skew
        return belief

    def _believe_alone(self, floor: float | None) -> None:
        """Goes by this machine's clock where nothing else is known, unless it is behind `floor`."""
        belief = ClockSource.LEDGER if may_start_alone(self.now(), floor) else ClockSource.UNKNOWN
        self._dispute(belief, None, floor or 0.0)

    def _dispute(self, belief: ClockSource, ledger: float | None, own: float) -> None:
        if belief in (ClockSource.LEDGER, ClockSource.RESUMED):
            self.dispute = None
        elif belief is not self._belief or self.dispute is None:
            self.dispute = Dispute(belief, ledger, own, self._wall())
        self._belief = belief

    def _judged_at_start(self, offset: float, error: float) -> ClockSource:
        wall, now = self._wall(), self.monotonic()
        expected, measured = wall - (self._skew or 0.0), self._skew is not None
        belief = judge_start(Start(now + offset, wall, expected, self._witnesses, measured), error)
        # Before it is decided, `now` is the ledger's time, and nothing is signed.
        self._offset = expected - now if belief is ClockSource.CARRIED else offset
        if belief is ClockSource.CARRIED:
            self._error, self._sampled_at = error, now
        return belief

    def _follow(self, offset: float, error: float, received: float, belief: ClockSource) -> None:
        held = self._error + (received - self._sampled_at) * _DRIFT
        if belief is ClockSource.RESUMED:
            # What was held against the ledger's clock before is still held: only the pause is made up for.
            offset -= self._ledger_gap
        # Two samples that exclude each other: a clock was set, and the new one is the one that is true now.
        if self._trusting or error <= held or abs(offset - self._offset) > error + held:
            self._offset, self._error, self._sampled_at = offset, error, received
        if belief is ClockSource.LEDGER:
            self._ledger_gap = 0.0
        self._wall_gap, self._trusting = self.wall_skew, False


#: What `timestamp` writes, as JSON Schema knows it.
Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


def timestamp(at: float | None) -> str | None:
    """RFC 3339 in UTC to the second, null for null: how every time of a resource is written."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
