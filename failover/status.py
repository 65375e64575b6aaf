"""What a host process tells its supervisor, and what a supervisor shows of its node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover.heartbeat import Beat
from failover.model import Identity, Role, State
from failover.queue import QueueStats


def _nothing_applied() -> int:
    return 0


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the host process knows: whether it can work, how far it has applied the log, and where the log's head is."""

    ready: Callable[[], bool] = _always
    applied_seq: Callable[[], int] = _nothing_applied
    #: Asked at each beat, on the scheduler; may raise while the database is away.
    head_seq: Callable[[], int] = _nothing_applied
    #: Whether this node is busy: then it looks at the lease at every poll, else as often as it beats.
    is_busy: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """This node as it is at one moment. Ages in seconds; `jobs`: seconds since each last succeeded, None: never.

    `queue_trouble`: why the queue could not be looked into; `doubled`: ranks that several live nodes say are theirs;
    `twins`: nodes of which several processes have beaten for longer than a deploy takes, and how many.
    """

    me: Identity
    role: Role
    state: State
    leading: bool
    epoch: int
    ledger_reachable: bool
    trouble: str | None
    lease_holder: str | None
    lease_expires_in_s: float | None
    pending: int
    queue: QueueStats
    beats: tuple[Beat, ...]
    queue_trouble: str | None
    doubled: dict[int, tuple[str, ...]]
    twins: dict[str, int]
    jobs: dict[str, float | None]
