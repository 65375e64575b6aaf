"""The nouns of failover as frozen values: who a node is, what it sees, what it may do about it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The part a node plays for others."""

    PRIMARY = "primary"
    BACKUP = "backup"
    STANDBY = "standby"
    ISOLATED = "isolated"


class State(StrEnum):
    """Where a node is in its own life. The diagram is at the head of the package."""

    STARTING = "STARTING"
    STANDBY = "STANDBY"
    CANDIDATE = "CANDIDATE"
    LEADING = "LEADING"
    DRAINING = "DRAINING"
    ISOLATED = "ISOLATED"
    REPLAYING = "REPLAYING"
    STOPPING = "STOPPING"


class Action(StrEnum):
    """What the shell is to do."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    RESIGN = "resign"
    HAND_OVER = "hand over"
    REPLAY = "replay"


class Kind(StrEnum):
    """Why the leader changed."""

    TAKEOVER = "takeover"
    SWITCHOVER = "switchover"
    FAILBACK = "failback"


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one node. `instance` is what holds a lease; `rank` 1 is the primary."""

    instance: str
    node: str
    rank: int

    @classmethod
    def new(cls, node: str, rank: int) -> Identity:
        """A process that has just started. A rolling deploy runs two of one node at once, so a name is not enough."""
        return cls(str(uuid.uuid4()), node, rank)


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease as it was read. `expires_in`: seconds by the database's clock at that moment, negative when over.

    `acquired_at`, `expires_at`: as stored. That clock can be set: see `failover.liveness` for when a lease is over.
    """

    holder: Identity
    epoch: int
    acquired_at: float
    expires_in: float
    #: Its holder ended it; otherwise, once it is over, the holder has been silent.
    resigned: bool = False
    expires_at: float = 0.0

    @property
    def read_at(self) -> float:
        """The database's time when it was read."""
        return self.expires_at - self.expires_in

    def silent_s(self, timeout: float) -> float:
        """How long no process has led, once the lease is over: since it was resigned, or since its last renewal."""
        return self.read_at - self.acquired_at if self.resigned else timeout - self.expires_in


@dataclass(frozen=True, slots=True)
class Free:
    """A lease that is over, as its watcher read it, and for how many seconds no process has led."""

    lease: Lease
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a decision depends on. Times are this node's monotonic clock, in seconds; None: not known."""

    now: float
    me: Identity
    state: State
    #: Whether this node can do its work. While it cannot, it is STARTING (ISOLATED without the database): no leader.
    ready: bool = True
    stop_requested: bool = False
    #: Since when the database has answered without fail; None while it does not.
    ledger_since: float | None = None
    #: The lease as last read, and when it ends. No lease, though the database answers: no process ever led.
    lease: Lease | None = None
    lease_expires_at: float | None = None
    #: The highest epoch this node ever saw: a lease below it came back with an older copy of the database.
    epoch_seen: int = 0
    #: This node's own belief: until when it may trust its lease, and when the last good renewal was sent.
    trusted_until: float | None = None
    renewed_at: float | None = None
    #: Since when this node has led without a break.
    led_since: float | None = None
    #: The process of rank 1 that beats, how old its beat is, since when it has been healthy.
    primary: Identity | None = None
    primary_beat_age: float | None = None
    primary_healthy_since: float | None = None
    last_failback_at: float | None = None
    #: What must be 0 before a failback: rows that wait in queues, events that rank 1 has not applied.
    pending: int = 0
    #: Rows in this node's own queue.
    own_pending: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The state to be in, and what to do now, in this order."""

    state: State
    actions: tuple[Action, ...] = ()


def role_of(state: State, rank: int, leading: bool) -> Role:
    """The role that others see: leading counts before all else, then whether the database is in reach."""
    if leading:
        return Role.PRIMARY if rank == 1 else Role.BACKUP
    return Role.ISOLATED if state is State.ISOLATED else Role.STANDBY
