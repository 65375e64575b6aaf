"""What outlives a process: its node's queue, its snapshot, and the few facts beside them. A disk may vanish."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as evolve
from pathlib import Path
from typing import Any

from api.node.shared_state import SharedState
from failover.errors import QueueFull, ShareFull
from failover.queue import Event, EventQueue, Queued, QueueLimits, QueueStats
from tests.chaos.simulation.books import Row
from tests.chaos.simulation.kernel import Violation

#: The database's clock, Unix seconds, when virtual time is 0.
EPOCH = 1_764_000_000.0
#: Small enough that a long outage fills it.
LIMITS = QueueLimits(events=400, share=0.25)


class MemoryQueue:
    """`EventQueue` in memory: the same calls, the same limits, the same order."""

    def __init__(self, path: Path, limits: QueueLimits, now: Callable[[], float]) -> None:
        self.path, self.limits, self._now = path, limits, now
        self.origin = str(uuid.uuid4())
        self._rows: dict[int, Queued] = {}
        self._places: dict[Event, int] = {}
        self._dead: dict[int, Queued] = {}
        self._last = self._synced = 0

    def append(self, events: Sequence[Event], *, ledger: str = "") -> list[int]:
        """All or none. There is one ledger."""
        if len(self._rows) + len(self._dead) + len(events) > self.limits.events:
            raise QueueFull("full")
        held = Counter(row.event.key for rows in (self._rows, self._dead) for row in rows.values())
        for event in events:
            if event.key and held[event.key] >= int(self.limits.events * self.limits.share):
                raise ShareFull("one key's share is full")
        return [self._insert(event) for event in events]

    def pending(self, limit: int, after: int = 0, _is_noted: object = None) -> list[Queued]:
        """In order. Memory keeps every row as it was."""
        return [row for place, row in self._rows.items() if place > after][:limit]

    def acknowledge(self, positions: Sequence[int]) -> None:
        """Once each."""
        for position in positions:
            if self._rows.pop(position, None) is not None:
                self._synced += 1

    def find(self, event_ids: Sequence[str]) -> dict[str, Event]:
        """Those that were ever taken."""
        return {event.event_id: event for event in self._places if event.event_id in event_ids}

    def holds(self, key: str) -> bool:
        """Whether events of `key` wait."""
        return any(row.event.key == key for row in self._rows.values())

    def count_try(self, position: int, reason: str) -> int:
        """One more refusal."""
        row = self._rows[position]
        self._rows[position] = evolve(row, tries=row.tries + 1)
        return row.tries + 1

    def set_aside(self, position: int, reason: str) -> None:
        """Dead."""
        if (row := self._rows.pop(position, None)) is not None:
            self._dead[position] = row

    def stats(self) -> QueueStats:
        """Counts and the oldest row's age."""
        size = sum(len(row.event.body) for row in self._rows.values())
        oldest = next(iter(self._rows.values()), None)
        age = None if oldest is None else max(0.0, self._now() - oldest.queued_at)
        return QueueStats(len(self._rows), size, age, self._synced, len(self._dead))

    def close(self) -> None:
        """Nothing is open."""

    def _insert(self, event: Event) -> int:
        if event not in self._places:
            self._last += 1
            self._places[event] = self._last
            self._rows[self._last] = Queued(self._last, event, 0, self._now())
        return self._places[event]


class Watched:
    """A queue whose takings and leavings are counted by the simulation itself: it need not believe the queue."""

    def __init__(self, inner: MemoryQueue | EventQueue, disk: Disk) -> None:
        self._inner, self._disk = inner, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, events: Sequence[Event], *, ledger: str = "") -> list[int]:
        """Notes where each event is."""
        positions = self._inner.append(events, ledger=ledger)
        for position, event in zip(positions, events, strict=True):
            if position not in self._disk.settled and position not in self._disk.waiting:
                self._disk.waiting[position] = event.event_id
                self._disk.queued(event.event_id, 1)
        return positions

    def acknowledge(self, positions: Sequence[int]) -> None:
        """Notes what leaves."""
        self._inner.acknowledge(positions)
        for position in positions:
            self._leave(position)

    def set_aside(self, position: int, reason: str) -> None:
        """Nothing in a run is at fault by itself, so nothing may be given up."""
        self._inner.set_aside(position, reason)
        raise Violation("nothing is given up", f"{self._disk.waiting.get(position)}: {reason}")

    def _leave(self, position: int) -> None:
        event_id = self._disk.waiting.pop(position, None)
        self._disk.settled.add(position)
        if event_id is not None:
            self._disk.queued(event_id, -1)


@dataclass
class Snapshot:
    """The node's copy. `seq` is its cursor, `event_id` what the log had there; `as_of` in ledger time."""

    ledger_id: str
    generation: int
    seq: int = 0
    event_id: str | None = None
    as_of: float = 0.0
    polled_at: float = 0.0
    complete: bool = False
    by_key: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    #: Licenses whose rows hold effects that are still in this node's queue.
    ahead: set[str] = field(default_factory=set)
    #: Licenses over which this node put what it queued, and how often it has written them since.
    own: dict[str, int] = field(default_factory=dict)

    def put(self, row: Row) -> None:
        """Only a newer row takes the place of one."""
        id = row.holding.license.id
        held = self.rows.get(id)
        if held is None or row.seq > held.seq:
            self.rows[id] = row
            self.ahead.discard(id)

    def settle(self, id: str, times: int, row: Row | None) -> None:
        """The ledger's row, now that what was queued is in it, unless this node has written it since."""
        if self.own.get(id) == times:
            del self.own[id]
            self.ahead.discard(id)
            if row is not None:
                self.rows[id] = row


@dataclass
class Machine:
    """What a disk is in. Its clocks run a little fast or slow, begin anywhere, and may be hours off.

    Its wall clock, `wall_off`, may be set.
    """

    virtual: Callable[[], float]
    booted: float
    rate: float
    wall_off: float

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self.booted + self.virtual() * self.rate

    def wall(self) -> float:
        """This machine's idea of the time of day."""
        return EPOCH + self.virtual() + self.wall_off


@dataclass
class Disk:
    """One node's disk. `waiting`: by place in the queue, the events that have not left it."""

    name: str
    machine: Machine
    folder: Path | None
    queued: Callable[[str, int], None]
    snapshot: Snapshot | None = None
    epoch_seen: int = 0
    #: How far the machine's wall clock was off when that was measured last, and how far ahead of the ledger's that was;
    #: None: never. It is kept with the snapshot.
    wall_off_known: float | None = None
    wall_skew: float | None = None
    waiting: dict[int, str] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    vanished: bool = False
    _memory: MemoryQueue | None = None
    _state: SharedState | None = None

    def open_queue(self, scratch: Path) -> Watched:
        """The queue as a new process opens it; the real one where the disk is a real folder."""
        if self.folder is not None:
            return Watched(EventQueue(self.folder / "sync_queue.db", LIMITS, self.machine.wall), self)
        if self._memory is None:
            self._memory = MemoryQueue(scratch / f"{self.name}.db", LIMITS, self.machine.wall)
        return Watched(self._memory, self)

    def shared_state(self) -> SharedState:
        """What the node's processes share in a mapped file, which outlives them."""
        if self._state is None:
            self._state = SharedState(None, self.machine.monotonic)
        return self._state
