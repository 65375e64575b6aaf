"""Retention: plain validations leave the log once they are counted and old, everything else when it is older still.

The log keeps its last row, and every row that a node with a fresh beat, or rank 1, may still have to read: followers
look for the event at their own place in it. Rank 1 holds it back for as long as its snapshot may be used: one that is
silent for longer makes its snapshot anew when it returns, and one that is gone for good must not keep a log for ever.
Rows go from the log's beginning, so that a follower which finds its place
finds all that came after it, but for validations, which change nothing that is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, and_, delete, func, select

from api import logs
from api.ledger.tables import (
    REMOVED_NOT_NORMAL,
    events,
    heartbeats,
    idempotency_records,
    licenses,
    log_head,
    machines,
    notices,
    outbox,
)
from api.licensing import DAY, Act
from api.supervisor.duties.rollup import rolled_up_until
from api.supervisor.duties.rows import add_to_mark, mark, set_mark
from api.supervisor.duties.terms import Writing

_log = logs.get("duties")

_CHUNK = 2_000
#: A day is promised; nodes' clocks may differ by less than the rest.
ANSWERS_KEPT_S = DAY + 3600.0
_CHECKS_SEEN = "validations removed up to"
_WITHOUT_RANK_1 = "retention goes on without rank 1"


class RetentionPeriods(msgspec.Struct, frozen=True, kw_only=True):
    """How long validations and all events are kept, in seconds.

    `timeout`: how old the beat of a healthy process may be; `gone`: that of a rank 1 which is waited for.
    """

    checks: float
    events: float
    timeout: float
    gone: float


class Reader(msgspec.Struct, frozen=True):
    """A process that follows the log, as it last beat, in ledger time."""

    rank: int
    beat_at: float
    applied_seq: int


def needed_from(head: int, readers: Sequence[Reader], now: float, keep: RetentionPeriods) -> int:
    """The first place of the log that must stay; all of it while no node beats. Pure."""
    fresh = [reader.applied_seq for reader in readers if 0.0 <= now - reader.beat_at <= keep.timeout]
    rank_1 = awaited(readers, now, keep)
    return min(head, *fresh, *([rank_1.applied_seq] if rank_1 else [])) if fresh else 0


def awaited(readers: Sequence[Reader], now: float, keep: RetentionPeriods) -> Reader | None:
    """The process of rank 1 that beat last, None where that is too long ago. Pure."""
    of_rank_1 = [reader for reader in readers if reader.rank == 1 and 0.0 <= now - reader.beat_at <= keep.gone]
    return max(of_rank_1, key=lambda reader: reader.beat_at, default=None)


def forget_checks(writing: Writing, keep: RetentionPeriods) -> bool:
    """Removes some plain validations that are old and rolled up; gives whether there may be more."""
    connection, now = writing.connection, writing.now
    seen = mark(connection, _CHECKS_SEEN)
    cutoff = min(now - keep.checks, rolled_up_until(connection, now))
    rows = _old(connection, _log_after(seen, _needed_from(writing, keep)), cutoff)
    plain = [row for row in rows if row.type == Act.VALIDATE]
    if plain:
        connection.execute(delete(events).where(events.c.seq.in_([row.seq for row in plain])))
    if rows:
        set_mark(connection, _CHECKS_SEEN, rows[-1].seq)
    _count_removed(connection, plain)
    return len(rows) == _CHUNK


def forget_events(writing: Writing, keep: RetentionPeriods) -> bool:
    """Removes some of the oldest events; gives whether there may be more."""
    connection = writing.connection
    rows = _old(connection, _log_after(0, _needed_from(writing, keep)), writing.now - keep.events)
    if rows:
        connection.execute(delete(events).where(events.c.seq <= rows[-1].seq))
    _count_removed(connection, rows)
    return len(rows) == _CHUNK


def machines_end_at(now: float, gone: float) -> float:
    """The moment before which a machine that left, or never came, is of no use to any node.

    No node answers from a copy older than `gone`, so no queue holds what came before; and who came is counted 30 days.
    """
    return now - max(gone + DAY, 30 * DAY)


def forget_machines(writing: Writing, keep: RetentionPeriods) -> bool:
    """Removes some machines without a seat that left long ago; gives whether there may be more. Copies do so too."""
    connection, end = writing.connection, machines_end_at(writing.now, keep.gone)
    columns = machines.c
    ended = and_(~columns.active, func.coalesce(columns.seat_at, columns.heartbeat_at, columns.created_at) < end)
    query = select(columns.id, columns.license_id).where(ended, columns.created_at < end)
    found = connection.execute(query.limit(_CHUNK)).all()
    ids = sorted({row.license_id for row in found})
    lock = select(licenses.c.id).where(licenses.c.id.in_(ids)).order_by(licenses.c.id)
    locked = list(connection.execute(lock.with_for_update(skip_locked=True)).scalars())
    chosen = columns.id.in_([row.id for row in found])
    removed = connection.execute(delete(machines).where(chosen, ended, columns.license_id.in_(locked))).rowcount
    return len(found) == _CHUNK and removed > 0


def tidy(writing: Writing, keep: RetentionPeriods) -> bool:
    """Removes some old entries of the outbox and notices of licenses that are no more; gives whether there may be more.

    The outbox's last entry stays, or its numbers would start again.
    """
    connection, last = writing.connection, select(func.max(outbox.c.number)).scalar_subquery()
    old = select(outbox.c.number).where(outbox.c.created_at < writing.now - keep.events, outbox.c.number < last)
    numbers = connection.execute(old.order_by(outbox.c.number).limit(_CHUNK)).scalars().all()
    if numbers:
        connection.execute(delete(outbox).where(outbox.c.number.in_(numbers)))
    joined = notices.outerjoin(licenses, licenses.c.id == notices.c.license_id)
    orphans = select(notices.c.license_id).select_from(joined).where(licenses.c.id.is_(None)).distinct().limit(_CHUNK)
    ids = connection.execute(orphans).scalars().all()
    if ids:
        connection.execute(delete(notices).where(notices.c.license_id.in_(ids)))
    return _CHUNK in (len(numbers), len(ids))


def forget_answers(writing: Writing) -> bool:
    """Removes some answers to admins' calls that may be forgotten; gives whether there may be more."""
    connection, columns = writing.connection, idempotency_records.c
    old = select(columns.id).where(columns.created_at < writing.now - ANSWERS_KEPT_S)
    ids = connection.execute(old.order_by(columns.created_at).limit(_CHUNK)).scalars().all()
    if ids:
        connection.execute(delete(idempotency_records).where(columns.id.in_(ids)))
    return len(ids) == _CHUNK


def _needed_from(writing: Writing, keep: RetentionPeriods) -> int:
    head = writing.connection.execute(select(log_head.c.seq)).scalar_one()
    query = select(heartbeats.c.rank, heartbeats.c.beat_at, heartbeats.c.applied_seq)
    readers = [Reader(*row) for row in writing.connection.execute(query)]
    _say_who_is_awaited(writing, awaited(readers, writing.now, keep))
    return needed_from(head, readers, writing.now, keep)


def _say_who_is_awaited(writing: Writing, rank_1: Reader | None) -> None:
    """Logged once for each change, also across changes of the leader."""
    gone = int(rank_1 is None)
    if mark(writing.connection, _WITHOUT_RANK_1) != gone:
        set_mark(writing.connection, _WITHOUT_RANK_1, gone)
        if gone:
            _log.warning("rank 1 has not been heard of for too long: the log no longer waits for it")
        else:
            _log.info("rank 1 is heard of again: the log waits for it")


def _log_after(seen: int, needed: int) -> Select[Any]:
    columns = (events.c.seq, events.c.type, events.c.mode, events.c.recorded_at, events.c.occurred_at)
    return select(*columns).where(events.c.seq > seen, events.c.seq < needed).order_by(events.c.seq).limit(_CHUNK)


def _old(connection: Connection, query: Select[Any], cutoff: float) -> list[Any]:
    """The rows before the first that is of `cutoff` or later, by the database's clock or by its node's.

    One of the two may have been set back for a while.
    """
    return list(
        itertools.takewhile(lambda row: max(row.recorded_at, row.occurred_at) < cutoff, connection.execute(query))
    )


def _count_removed(connection: Connection, rows: Sequence[Any]) -> None:
    """`/stats` counts the events of backup mode and of isolated nodes, those that are gone included."""
    add_to_mark(connection, REMOVED_NOT_NORMAL, sum(row.mode != "normal" for row in rows))
