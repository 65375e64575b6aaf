"""The stores' twins in memory, for tests and simulations; they pass the same contract tests as those in SQL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from failover.errors import NotLeading
from failover.heartbeat import Beat, Report
from failover.model import Free, Identity, Kind, Lease
from failover.sql import RESIGNED


@dataclass(frozen=True, slots=True)
class Failover:
    """One row of what table `failovers` holds."""

    epoch: int
    at: float
    from_node: str
    to_node: str
    kind: Kind
    gap_s: float


@dataclass(frozen=True, slots=True)
class _Row:
    holder: Identity
    epoch: int
    acquired_at: float
    expires_at: float


class MemoryLeaseStore:
    """A `LeaseStore` whose database's clock is `clock` (Unix seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._row: _Row | None = None
        self.failovers: list[Failover] = []

    def watch(self) -> Lease | None:
        """The lease as it is; None where no process ever led."""
        row = self._row
        if row is None:
            return None
        expires_in = row.expires_at - self._clock()
        return Lease(row.holder, row.epoch, row.acquired_at, expires_in, row.expires_at <= RESIGNED, row.expires_at)

    def acquire(self, me: Identity, timeout: float, epoch_seen: int = 0, free: Free | None = None) -> int | None:
        """Takes a lease that has ended, or that is still the one which was found to be over."""
        with self._lock:
            read, now = self.watch(), self._clock()
            if read is not None and not _is_over(read, free):
                return None
            epoch = max(read.epoch if read else 0, epoch_seen) + 1
            self._row = _Row(me, epoch, now, now + timeout)
            if read is not None and read.holder.node != me.node:
                silent_s = free.silent_s if free else max(0.0, read.silent_s(timeout))
                self._record(read, me, epoch, Kind.TAKEOVER, silent_s)
            return epoch

    def renew(self, me: Identity, epoch: int, timeout: float) -> bool:
        """By holder and epoch."""
        with self._lock:
            if (row := self._held(me, epoch)) is None:
                return False
            self._row = replace(row, expires_at=self._clock() + timeout)
            return True

    def resign(self, me: Identity, epoch: int) -> bool:
        """Ends it and keeps the epoch."""
        with self._lock:
            row = self._held(me, epoch)
            if row is None or row.expires_at <= RESIGNED:
                return False
            self._row = replace(row, acquired_at=self._clock(), expires_at=RESIGNED)
            return True

    def hand_over(self, lease: Lease, to: Identity, timeout: float, kind: Kind) -> int | None:
        """Moves it if it is still the one that was read."""
        with self._lock:
            if self._held(lease.holder, lease.epoch) is None:
                return None
            now = self._clock()
            self._row = _Row(to, lease.epoch + 1, now, now + timeout)
            self._record(lease, to, lease.epoch + 1, kind, 0.0)
            return lease.epoch + 1

    def last_failback_age(self) -> float | None:
        """Seconds since the newest failback."""
        found = [failover for failover in self.failovers if failover.kind is Kind.FAILBACK]
        return self._clock() - max(found, key=lambda one: one.epoch).at if found else None

    @contextlib.contextmanager
    def fenced(self, me: Identity, epoch: int) -> Iterator[None]:
        """A block during which the lease cannot change hands. Raises `NotLeading`."""
        with self._lock:
            row = self._held(me, epoch)
            if row is None or row.expires_at <= self._clock():
                raise NotLeading(f"epoch {epoch} is not held by {me.node}")
            yield

    def _held(self, me: Identity, epoch: int) -> _Row | None:
        row = self._row
        return row if row and row.holder.instance == me.instance and row.epoch == epoch else None

    def _record(self, before: Lease, to: Identity, epoch: int, kind: Kind, gap: float) -> None:
        self.failovers.append(Failover(epoch, self._clock(), before.holder.node, to.node, kind, gap))


class MemoryHeartbeatStore:
    """A `HeartbeatStore` whose database's clock is `clock` (Unix seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[str, tuple[float, Beat]] = {}

    def write(self, identity: Identity, report: Report) -> None:
        """Beats."""
        now = self._clock()
        started_at = self._rows[identity.instance][1].started_at if identity.instance in self._rows else now
        beat = Beat(identity=identity, age_s=0.0, beat_at=now, started_at=started_at, report=report)
        self._rows[identity.instance] = (now, beat)

    def read(self) -> Sequence[Beat]:
        """Everybody's last beat, by rank, the freshest first. The queue's age grows since the beat."""
        now = self._clock()
        beats = [_aged(beat, now - at) for at, beat in list(self._rows.values())]
        return sorted(beats, key=lambda beat: (beat.identity.rank, beat.age_s))

    def forget(self, beats: Sequence[Beat]) -> None:
        """Removes the rows that are still these."""
        gone = {(beat.identity.instance, beat.beat_at) for beat in beats}
        self._rows = {instance: row for instance, row in self._rows.items() if (instance, row[0]) not in gone}


def _is_over(read: Lease, free: Free | None) -> bool:
    if free is None:
        return read.expires_in < 0
    return (read.epoch, read.expires_at) == (free.lease.epoch, free.lease.expires_at)


def _aged(beat: Beat, age: float) -> Beat:
    oldest = beat.report.queue_oldest_s
    report = beat.report if oldest is None else replace(beat.report, queue_oldest_s=oldest + age)
    return replace(beat, age_s=age, report=report)
