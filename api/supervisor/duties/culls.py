"""Culls: a machine that has been silent for longer than its policy's heartbeat loses its seat, if the policy says so.

One that never pinged has no heartbeat that could have died, and keeps its seat.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from api.ledger.tables import licenses, machines
from api.licensing import Policy, Watch
from api.node.clock import timestamp
from api.supervisor.duties import outbox
from api.supervisor.duties.rows import all_policies
from api.supervisor.duties.terms import Writing
from api.supervisor.duties.watching import watched

CULLED = "machine.culled"
_CHUNK = 100


def cull(writing: Writing) -> bool:
    """Frees the seats of some dead machines; gives whether there may be more of them."""
    connection, now = writing.connection, writing.now
    dead = _dead(all_policies(connection), watched(connection), now)
    if dead is None:
        return False
    columns = (machines.c.id, machines.c.license_id, machines.c.heartbeat_at)
    joined = machines.join(licenses, machines.c.license_id == licenses.c.id)
    query = select(*columns).select_from(joined).where(machines.c.active, dead).order_by(machines.c.license_id)
    candidates = connection.execute(query.limit(_CHUNK)).all()
    if not candidates:
        return False
    locked = _lock(writing, sorted({row.license_id for row in candidates}))
    # What was read without the lock may have pinged or gone meanwhile.
    doomed = connection.execute(query.where(machines.c.id.in_([row.id for row in candidates]))).all()
    _free(writing, [row for row in doomed if row.license_id in locked])
    return len(candidates) == _CHUNK and bool(locked)


def _dead(policies: list[Policy], watch: Watch, now: float) -> ColumnElement[bool] | None:
    """The condition of a machine that is to be culled, None where no machine can be."""
    of_interval: defaultdict[int, list[str]] = defaultdict(list)
    for policy in policies:
        if policy.machine_heartbeat_s is not None and policy.cull == "deactivate":
            of_interval[policy.machine_heartbeat_s].append(policy.id)
    conditions = []
    for interval, ids in of_interval.items():
        heard_before = min(now, watch.until) - interval
        if watch.since < heard_before:
            conditions.append(and_(licenses.c.policy.in_(ids), machines.c.heartbeat_at < heard_before))
    return or_(*conditions) if conditions else None


def _lock(writing: Writing, license_ids: list[str]) -> set[str]:
    """Locks licenses in id order; those that a call holds just now are left for the next time."""
    query = select(licenses.c.id).where(licenses.c.id.in_(license_ids)).order_by(licenses.c.id)
    return set(writing.connection.execute(query.with_for_update(skip_locked=True)).scalars())


def _free(writing: Writing, doomed: list[Any]) -> None:
    if not doomed:
        return
    ids, license_ids = [row.id for row in doomed], sorted({row.license_id for row in doomed})
    # Not counted anew from the machines: some may be hidden, and theirs are not to be given away.
    gone = select(func.count()).where(machines.c.license_id == licenses.c.id, machines.c.id.in_(ids))
    counted = {
        "seats": licenses.c.seats - gone.scalar_subquery(),
        "excess": licenses.c.excess - gone.where(machines.c.excess).scalar_subquery(),
    }
    writing.connection.execute(update(licenses).where(licenses.c.id.in_(license_ids)).values(counted))
    freed = {"active": False, "excess": False, "heartbeat_at": None, "culled": True, "seat_at": writing.now}
    writing.connection.execute(update(machines).where(machines.c.id.in_(ids)).values(freed))
    events = [
        writing.add_event(
            CULLED, license_id=row.license_id, machine_id=row.id, heartbeat_at=timestamp(row.heartbeat_at)
        )
        for row in doomed
    ]
    writing.stamp(machines, ids)
    writing.stamp(licenses, license_ids)
    outbox.enqueue(writing, [outbox.of(event) for event in events])
