"""`GET /stats` as the OpenAPI document has it, member by member."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from api.node.clock import Timestamp

Role = Literal["primary", "backup", "standby", "isolated"]
State = Literal["STARTING", "STANDBY", "CANDIDATE", "LEADING", "DRAINING", "ISOLATED", "REPLAYING", "STOPPING"]
Count = Annotated[int, Meta(ge=0)]
#: Null on a node that has never read its ledger; without it, what was last read.
Known = Annotated[Count | None, Meta(description="Null: this node has never read its ledger")]
Seconds = Annotated[float, Meta(ge=0)]


class SnapshotView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """This node's copy of the ledger: its place in the log, how old it is, what it holds. Null: there is none yet."""

    seq: Count | None
    lag_s: Seconds | None
    licenses: Count | None


class StatsNodeView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The node that answers, now. `epoch` 0: it has not read a lease yet."""

    id: str
    rank: Annotated[int, Meta(ge=1)]
    role: Role
    state: State
    epoch: Count
    uptime_s: Seconds
    disk: Literal["persistent", "ephemeral", "unknown"]
    snapshot: SnapshotView
    ledger: Literal["reachable", "unreachable"]


class LeaseView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who leads. Null: nobody, as far as this node knows; `acquired_at` null: nobody ever did."""

    holder: str | None
    epoch: Count
    expires_in_s: Seconds | None
    acquired_at: Timestamp | None


class BeatView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A node as it was last heard of, `beat_age_s` ago. `url` null: it was not given its `NODE_URL`.

    `presence`, as far as beats and the leader's calls of `/livez` tell. `beating`: it is there. `asleep`: its host
    ended it in order, and the next call wakes it where the host does that. `isolated`: it answers at its `url` and
    does not beat. `unreachable`: its `url` does not answer. `dead`: its `url` refuses, or its host says that nothing
    runs there. `silent`: it beats no more and has not been called since. Null: not known.
    """

    id: str
    rank: Annotated[int, Meta(ge=1)]
    role: Role
    url: str | None
    beat_age_s: Seconds
    applied_seq: Count
    queue: Count
    version: str
    presence: Literal["beating", "asleep", "isolated", "unreachable", "dead", "silent"] | None


class QueueView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """This node's own queue, now. `oldest_s` null: nothing waits."""

    pending: Count
    bytes: Count
    oldest_s: Seconds | None


class SyncView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Events that came in while rank 1 did not lead: `total` is `pending`, `synced` and `dead` (set aside) together.

    `pending` are those that rank 1 has not applied, and those in queues. On a node that has never read its ledger
    `pending` is what its own queue holds, and what only the ledger counts is null.
    """

    total: Known
    pending: Count
    synced: Known
    dead: Known
    conflicts: Known
    queue: QueueView


class LicensesView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """By stored status; `expired` of any status, `expiring_7d` of the active ones."""

    total: Known
    active: Known
    suspended: Known
    banned: Known
    expired: Known
    expiring_7d: Known


class MachinesView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Machines that hold a seat."""

    total: Known
    alive: Known


class MinuteView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The verdicts of one minute, which began `at`."""

    at: Timestamp
    valid: Count
    denied: Count


class ChecksView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Verdicts in the ledger; those in queues are counted when they are replayed. `per_minute`: the last hour's."""

    total: Known
    valid: Known
    denied: Known
    by_code: dict[str, Count]
    last_hour: Known
    per_minute: list[MinuteView]


class FailoverView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Another node came to lead. `gap_s`: for how long nobody had."""

    at: Timestamp
    from_: str | None = msgspec.field(name="from")
    to: str
    kind: Literal["takeover", "switchover", "failback"]
    epoch: Count
    gap_s: Seconds | None


class StatsView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What goes on. `node`, `sync.queue` and the part of `sync.pending` that is this node's are as they are now.

    All else is the ledger's. While `node.ledger` is `unreachable` it is what this node last read there, at most some
    seconds before that was so, also when it has been started again since; what runs on by the clock (a lease, ages, the
    last hour) has done so. `node.snapshot.lag_s` says how long ago that is.
    """

    node: StatsNodeView
    lease: LeaseView
    nodes: list[BeatView]
    sync: SyncView
    licenses: LicensesView
    machines: MachinesView
    checks: ChecksView
    failovers: list[FailoverView]
