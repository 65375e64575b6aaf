"""Whether a lease is over and which processes live, as one observed it by its monotonic clock, which cannot be set.

The database's clock can be set, and what is stored by it then lies in the future, or long ago. So a stored time is
evidence at the first sight of a row, and later only while that clock has kept pace with this process's own. What counts
above it: a row that changes is of a live process, and one that stayed the same for a time-out is of a dead one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from failover.heartbeat import Beat
from failover.model import Free, Lease, State


class LeaseWatch:
    """When the lease is over.

    `tolerance`: by how many seconds the database's clock may seem to have been set before it is not believed; less than
    the margin by which a holder ends its trust early.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._lease: Lease | None = None
        self._timeout = 0.0
        self._seen_at = 0.0
        self._is_steady = True
        self._free_at: float | None = None
        # By how much the database's clock was ahead of this one, at least: at the last look, and at all those that
        # count for this row, the lowest and the highest.
        self._last: float | None = None
        self._lowest = self._highest = 0.0

    def observe(self, lease: Lease | None, asked: float, answered: float, timeout: float) -> None:
        """Takes in the lease as read between two monotonic moments.

        `timeout`: for how many seconds its holder may trust a renewal at most.
        """
        before, self._lease, self._timeout = self._lease, lease, timeout
        if lease is None:
            self._free_at = None
            return
        if before is None or _row(before) != _row(lease):
            self._seen_at, self._free_at = answered, None
            self._lowest, self._highest = float("inf"), float("-inf")
        self._compare(lease.read_at - answered, lease.read_at - asked)
        ends_at = self._ends_at(lease, answered)
        # What was over once is over, whatever the clock says after that.
        self._free_at = ends_at if self._free_at is None else min(self._free_at, ends_at)

    @property
    def free_at(self) -> float | None:
        """The monotonic moment from which on the lease is free; None: no process has ever led."""
        return self._free_at

    def free(self, now: float) -> Free | None:
        """The lease that is to be taken at `now`, as it was read; None while it is held, or was never held."""
        if self._lease is None or self._free_at is None or now < self._free_at:
            return None
        silent_s = self._lease.silent_s(self._timeout) if self._is_steady else now - self._seen_at
        return Free(self._lease, max(0.0, silent_s))

    def _compare(self, at_least: float, at_most: float) -> None:
        """Whether the clock has kept pace since the look before the row was written; between those two it was."""
        self._is_steady = True
        if self._last is not None:
            self._lowest, self._highest = min(self._lowest, self._last), max(self._highest, self._last)
            self._is_steady = self._highest - self._tolerance <= at_most <= self._lowest + self._tolerance
        self._last = at_least
        self._lowest, self._highest = min(self._lowest, at_least), max(self._highest, at_least)

    def _ends_at(self, lease: Lease, answered: float) -> float:
        if lease.resigned:
            return self._seen_at
        unchanged_until = self._seen_at + self._timeout
        return min(unchanged_until, answered + lease.expires_in) if self._is_steady else unchanged_until


def _row(lease: Lease) -> tuple[str, int, float]:
    return lease.holder.instance, lease.epoch, lease.expires_at


@dataclass(frozen=True, slots=True)
class _BeatRecord:
    """A process's beat: as it is stored, and the monotonic moments of it and of the first without a gap.

    `looked_at`: when it was seen for the first time; `stored_age_s`: how old the database's clock said it was then.
    """

    beat_at: float
    at: float
    since: float
    looked_at: float
    stored_age_s: float


class BeatWatch:
    """How old each beat is, and since when its process has been alive, as this process saw it.

    `timeout`: how old the beat of a live process may be, in seconds.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._records: dict[str, _BeatRecord] = {}
        self._looked_at = 0.0

    def observe(self, beats: Sequence[Beat], now: float) -> tuple[Beat, ...]:
        """The beats as read at `now` (monotonic), with ages by this process's clock, by rank, the freshest first."""
        self._records = {beat.identity.instance: self._take(beat, now) for beat in beats}
        self._looked_at = now
        aged = (_aged(beat, now - self._records[beat.identity.instance].at) for beat in beats)
        return tuple(sorted(aged, key=lambda beat: (beat.identity.rank, beat.age_s)))

    def alive_since(self, instance: str) -> float:
        """Since when (monotonic) the beats of `instance` have come without a gap. Raises KeyError: it never beat."""
        return self._records[instance].since

    def long_gone(self, beats: Sequence[Beat], now: float, age_s: float, watched_s: float) -> list[Beat]:
        """The beats to be removed: over `age_s` old or of a moment to come as stored, and the same for `watched_s`.

        A clock that is set years ahead for a moment makes all of them old, and none the same for long that is alive.
        """
        records = self._records
        return [
            beat
            for beat in beats
            if (record := records.get(beat.identity.instance)) and _has_long_gone(record, now, age_s, watched_s)
        ]

    def twins(self, beats: Sequence[Beat], now: float, after_s: float) -> dict[str, int]:
        """The nodes of which several processes have beaten side by side for over `after_s` seconds, and how many."""
        lasting = [
            beat.identity.node
            for beat in beats
            if beat.is_fresh(self._timeout)
            and beat.report.state != State.STOPPING
            and now - self.alive_since(beat.identity.instance) > after_s
        ]
        return {node: count for node, count in Counter(lasting).items() if count > 1}

    def _take(self, beat: Beat, now: float) -> _BeatRecord:
        before = self._records.get(beat.identity.instance)
        if before is None:
            # All there is to go by is what is stored. A beat of a moment to come may be of any age.
            at = now - beat.age_s if beat.age_s >= 0.0 else float("-inf")
            return _BeatRecord(beat.beat_at, at, now, now, beat.age_s)
        if beat.beat_at <= before.beat_at:
            # The same, or an older one: the clock was set back, or the table restored. That shows no sign of life.
            return replace(before, beat_at=beat.beat_at)
        # It came after the last look; when, only a clock that was not set back since then can tell.
        at = max(now - beat.age_s, self._looked_at) if beat.age_s >= 0.0 else self._looked_at
        since = before.since if at - before.at <= self._timeout else at
        return _BeatRecord(beat.beat_at, at, since, now, beat.age_s)


def _has_long_gone(record: _BeatRecord, now: float, age_s: float, watched_s: float) -> bool:
    watched = now - record.looked_at
    return watched >= watched_s and not 0.0 <= record.stored_age_s + watched <= age_s


def _aged(beat: Beat, age: float) -> Beat:
    """`beat` at that age; the oldest row of its queue was already so old when it beat."""
    oldest = beat.report.queue_oldest_s
    if oldest is None:
        return replace(beat, age_s=age)
    return replace(beat, age_s=age, report=replace(beat.report, queue_oldest_s=oldest - beat.age_s + age))
