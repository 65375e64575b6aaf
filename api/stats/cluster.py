"""The cluster as the ledger has it: who holds the lease, who led before, and handing it to a node on command."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select

from api.checks.schemas import shown_name
from api.ledger import tables
from api.ledger.database import Database
from api.ledger.records import IdempotencyRecord
from api.node.clock import timestamp
from api.node.published import NodeState, QueueState
from api.problems import Problem
from failover import SqlLeaseStore
from failover.heartbeat import Beat, SqlHeartbeatStore
from failover.model import Identity, Kind

_LISTED = 20
#: By how much this node's idea of ledger time may be off.
_SKEW_S = 1.0

NO_LEASE = {"holder": None, "epoch": 0, "expires_in_s": None, "acquired_at": None}


def lease(connection: Connection, now: float) -> dict[str, Any]:
    """The lease in the shape of `/stats`; `now` is ledger time. A lease that is over has no holder."""
    row = connection.execute(select(tables.lease)).first()
    if row is None:
        return dict(NO_LEASE)
    left = row.expires_at - now
    return {
        "holder": row.node if left > 0 else None,
        "epoch": row.epoch,
        "expires_in_s": round(left, 1) if left > 0 else None,
        "acquired_at": timestamp(row.acquired_at),
    }


def observed_from_outside(database: Database) -> NodeState:
    """What a process that is no node of the cluster can say of it: a standby's view. Raises `LedgerError`."""
    held = SqlLeaseStore(database).watch()
    return NodeState(
        at=time.monotonic(),
        instance="",
        role="standby",
        state="STANDBY",
        epoch=0 if held is None else held.epoch,
        ledger_reachable=True,
        lease_rank=held.holder.rank if held is not None and held.expires_in > 0 else None,
    )


def sync(connection: Connection, node: str, now: float) -> dict[str, Any]:
    """The events that came in while rank 1 did not lead, and how far rank 1 has taken them in; as in `/stats`.

    What waits in other nodes' queues counts as last reported; `node`'s own is for `with_queue` to add. `now` is ledger
    time: a beat of a moment to come is of a clock that was ahead, and older than any other.
    """
    events, beats, findings = tables.events.c, tables.heartbeats.c, tables.replay_findings.c
    is_past = beats.beat_at <= now + _SKEW_S
    applied = connection.scalar(
        select(beats.applied_seq).where(beats.rank == 1).order_by(is_past.desc(), beats.beat_at.desc()).limit(1)
    )
    not_normal, marks = select(func.count()).where(events.mode != "normal"), tables.duty_marks.c
    removed = connection.scalar(select(marks.value).where(marks.name == tables.REMOVED_NOT_NORMAL)) or 0
    total = removed + (connection.scalar(not_normal) or 0)
    pending = connection.scalar(not_normal.where(events.seq > (applied or 0))) or 0
    last_said = select(beats.node, beats.queue).where(beats.node != node).order_by(is_past, beats.beat_at)
    elsewhere = sum({row.node: row.queue for row in connection.execute(last_said)}.values())
    found = dict(
        connection.execute(select(findings.kind == "dead", func.count()).group_by(findings.kind == "dead")).all()
    )
    dead = found.get(True, 0)
    return {
        "total": total + elsewhere + dead,
        "pending": pending + elsewhere,
        "synced": total - pending,
        "dead": dead,
        "conflicts": found.get(False, 0),
    }


NO_SYNC: dict[str, Any] = dict.fromkeys(("total", "pending", "synced", "dead", "conflicts"))


def with_queue(counted: Mapping[str, Any], own: QueueState) -> dict[str, Any]:
    """What `sync` counted, with what waits in this node's own queue now."""
    total = counted["total"]
    return {
        **counted,
        "total": None if total is None else total + own.pending,
        "pending": (counted["pending"] or 0) + own.pending,
        "queue": {
            "pending": own.pending,
            "bytes": own.bytes,
            "oldest_s": None if own.oldest_s is None else round(own.oldest_s, 1),
        },
    }


def failovers(connection: Connection) -> list[dict[str, Any]]:
    """The last changes of hands, newest first, in the shape of `/stats`."""
    rows = connection.execute(select(tables.failovers).order_by(tables.failovers.c.epoch.desc()).limit(_LISTED))
    return [
        {
            "at": timestamp(row.at),
            "from": row.from_node,
            "to": row.to_node,
            "kind": row.kind,
            "epoch": row.epoch,
            "gap_s": None if row.gap_s is None else round(row.gap_s, 1),
        }
        for row in rows
    ]


class _OnConnection(msgspec.Struct, frozen=True):
    """`failover.database.Storage` in the transaction that is open on `connection`."""

    connection: Connection
    is_sqlite: bool

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        return contextlib.nullcontext(self.connection)

    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        return contextlib.nullcontext(self.connection)


#: What is to be committed with the effect of a call that is answered so.
Recorded = Callable[[dict[str, Any]], IdempotencyRecord | None]


def hand_to(
    database: Database, node: str, timeout: float, *, promote: bool, recorded: Recorded = lambda _: None
) -> dict[str, Any]:
    """Moves the lease to `node` in one transaction, whichever node has it. The former leader is fenced out.

    A switchover asks for a node that beats and for a leader to take it from; `promote` takes a lease that nobody holds
    as well. Gives `{"to", "epoch"}`. Raises `RESOURCE_NOT_FOUND`, `CONFLICT` and `LedgerError`.
    """
    to = _beating(database, node, timeout).identity
    with database.writing() as connection:
        store = SqlLeaseStore(_OnConnection(connection, database.is_sqlite))
        answer = {"to": node, "epoch": _moved(store, to, timeout, promote)}
        record = recorded(answer)
        if record is not None:
            connection.execute(insert(tables.idempotency_records), msgspec.structs.asdict(record))
    return answer


def _moved(store: SqlLeaseStore, to: Identity, timeout: float, promote: bool) -> int:
    """The epoch in which `to` has the lease. Raises `CONFLICT`."""
    held = store.watch()
    if held is not None and held.expires_in > 0:
        if held.holder == to:
            raise Problem("CONFLICT", f"{to.node} has the lease already")
        epoch = store.hand_over(held, to, timeout, Kind.SWITCHOVER)
    elif promote:
        epoch = store.acquire(to, timeout, 0 if held is None else held.epoch)
    else:
        raise Problem("CONFLICT", "nobody has the lease just now: there is nothing to hand over")
    if epoch is None:
        raise Problem("CONFLICT", "the lease changed hands in the same moment")
    return epoch


def _beating(database: Database, node: str, timeout: float) -> Beat:
    beats = [beat for beat in SqlHeartbeatStore(database).read() if beat.identity.node == node]
    if not beats:
        raise Problem("RESOURCE_NOT_FOUND", f"no node {shown_name(node)} has ever beaten here")
    fresh = [beat for beat in beats if beat.is_fresh(timeout)]
    if not fresh:
        raise Problem("CONFLICT", f"{node} does not beat")
    newest = max(fresh, key=lambda beat: beat.started_at)
    if not newest.may_lead:
        raise Problem("CONFLICT", f"{node} is {newest.report.state}: it cannot lead")
    return newest
