"""Since when, and up to when, silence counts against machines and licenses, for the whole cluster.

An isolated node may hold pings and check-ins that the ledger has not got yet. So silence counts only in the span
[since, until] of ledger time in which the leader has made sure that every process delivered what it took:

- `since` moves to now at each look that finds trouble: a process that is silent and did not sign off, no beat at all,
  that no leader looked for longer than the time-out (no leader, or no ledger), or that the ledger's clock was set. A
  moment to come, which only such a clock can have written down, is not believed.
- `until` is the oldest moment up to which all processes that beat have delivered: what waits in a queue was taken no
  earlier than its oldest row. So a row that cannot be replayed stops the counting there, and once it is replayed the
  time counts that passed meanwhile. Without an end for a node alone that has delivered everything.

A silent process counts until it beats again, or until a younger process of its node does (which has its disk, and says
what is queued there), or until it is older than `ISOLATED_MAX_AGE`: no node answers from so old a snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, select, update

from api.ledger import tables
from api.licensing import ALWAYS, Watch
from api.supervisor.duties.pace import Pace
from api.supervisor.duties.rows import put
from api.supervisor.duties.terms import Writing
from failover import State

#: How long a worker may still be trying to record what it took, and a beat be on its way: counted off `until`.
_IN_FLIGHT_S = 3.0
#: How far two nodes may be apart that go by their own time while the ledger's clock is wrong.
_APART_S = 1.0
_LAST_AND_BEATS = """
SELECT json_build_array(
    (SELECT json_build_array(since, until, looked_at) FROM watch),
    (SELECT coalesce(json_agg(json_build_array(node, started_at, beat_at, state, queue, queue_oldest_at)), '[]')
    FROM heartbeats)
)::text AS seen
"""


class ProcessBeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a process reported at its last beat, and when it began and beat, and took the oldest row of its queue.

    All in ledger time.
    """

    node: str
    started_at: float
    beat_at: float
    state: str
    queue: int
    queue_oldest_at: float | None = None

    @property
    def signed_off(self) -> bool:
        return self.state == State.STOPPING and self.queue == 0


class WatchRecord(msgspec.Struct, frozen=True):
    """What the leader found at `looked_at`. `since`: when there was trouble last, None: never."""

    since: float | None
    until: float
    looked_at: float


class Limits(msgspec.Struct, frozen=True):
    """How old the beat of a healthy process may be, and how old a snapshot from which a node still answers."""

    timeout: float
    isolated_max_age: float


def observe(
    before: WatchRecord | None, beats: Sequence[ProcessBeat], now: float, limits: Limits, *, was_set: bool = False
) -> WatchRecord:
    """The next record, made of the one `before` and the beats; `was_set`: whether the ledger's clock was. Pure."""
    fresh = [one for one in beats if 0.0 <= now - one.beat_at <= limits.timeout]
    unseen = before is not None and not 0.0 <= now - before.looked_at <= limits.timeout
    trouble = (
        unseen
        or was_set
        # Before the first look of all, no process has beaten yet.
        or (before is not None and not fresh)
        or any(one.queue and one.queue_oldest_at is None for one in fresh)
        or any(_may_hold_pings(one, fresh, now, limits) for one in beats)
    )
    since = before.since if before is not None else None
    if trouble or (since is not None and since > now):
        since = now
    return WatchRecord(since, _delivered_until(beats, fresh, now), now)


def _delivered_until(beats: Sequence[ProcessBeat], fresh: Sequence[ProcessBeat], now: float) -> float:
    """Up to when all have delivered. A node that is alone has: what it takes, it takes to this ledger.

    One that is only alone for now is not: the others, when they return, read this before the next look.
    """
    queued = [one.queue_oldest_at for one in fresh if one.queue and one.queue_oldest_at is not None]
    if len({one.node for one in beats}) < 2:
        return min(queued, default=math.inf)
    return min([now - _IN_FLIGHT_S, *(one.beat_at - _IN_FLIGHT_S for one in fresh), *queued])


def _may_hold_pings(one: ProcessBeat, fresh: Sequence[ProcessBeat], now: float, limits: Limits) -> bool:
    """Whether it is silent, and may have answered clients since, with the events still in its queue."""
    silent = one not in fresh and now - one.beat_at <= limits.isolated_max_age
    succeeded = any(other.node == one.node and other.started_at >= one.beat_at for other in fresh)
    return silent and not one.signed_off and not succeeded


def keep_watch(writing: Writing, limits: Limits, pace: Pace) -> bool:
    """Looks, and keeps what was found. Gives False: there is never more to do."""
    connection = writing.connection
    pace.observe(writing.now)
    before, beats = _last_observation_and_beats(connection, writing.database_ahead)
    found = observe(before, beats, writing.now, limits, was_set=pace.was_set_within(limits.timeout))
    row = msgspec.structs.asdict(found)
    # Done every few seconds: an upsert would lock the row first, which is written to the log as well.
    if not connection.execute(update(tables.watch).where(tables.watch.c.id == 1).values(row)).rowcount:
        put(connection, tables.watch, [{"id": 1, **row}])
    return False


def watched(connection: Connection) -> Watch:
    """The span in which silence counts, as the leader last found it; without an end before there was a leader."""
    return _found(_last(connection))


def counted(last: WatchRecord | None, now: float, timeout: float) -> Watch:
    """The same at `now`, for a node that answers: silence after a look that is too old does not count.

    So it is after a night in which no node ran, until there is a leader who looks and finds that trouble. Pure.
    """
    found = _found(last)
    if last is None or -_APART_S <= now - last.looked_at <= timeout:
        return found
    return Watch(found.since, min(found.until, last.looked_at))


def _found(last: WatchRecord | None) -> Watch:
    if last is None:
        return ALWAYS
    return Watch(until=last.until) if last.since is None else Watch(last.since, last.until)


def counting_since(connection: Connection) -> float | None:
    """When (ledger time) the cluster was last in trouble: silence before it never counts. None: there was none yet."""
    last = _last(connection)
    return None if last is None else last.since


def _last(connection: Connection) -> WatchRecord | None:
    columns = tables.watch.c
    row = connection.execute(select(columns.since, columns.until, columns.looked_at)).first()
    return None if row is None else WatchRecord(*row)


def _last_observation_and_beats(
    connection: Connection, database_ahead: float
) -> tuple[WatchRecord | None, list[ProcessBeat]]:
    """The last look and, in ledger time, what every process reported at its last beat: in one message."""
    stored = tables.heartbeats.c
    columns = (stored.node, stored.started_at, stored.beat_at, stored.state, stored.queue, stored.queue_oldest_at)
    if connection.dialect.name == "sqlite":
        before = _last(connection)
        rows: Sequence[Any] = connection.execute(select(*columns)).all()
    else:
        # One value of JSON: of rows each column would be described anew every time.
        found, rows = msgspec.json.decode(connection.exec_driver_sql(_LAST_AND_BEATS).scalar_one())
        before = None if found is None else WatchRecord(found[0], float(found[1]), found[2])  # JSON has no infinity
    beats = [ProcessBeat(**dict(zip([column.name for column in columns], row, strict=True))) for row in rows]
    return before, [_by_ledger_time(one, database_ahead) for one in beats]


def _by_ledger_time(beat: ProcessBeat, database_ahead: float) -> ProcessBeat:
    """Beats are kept by the database's own clock."""
    oldest_at = None if beat.queue_oldest_at is None else beat.queue_oldest_at - database_ahead
    began, beat_at = beat.started_at - database_ahead, beat.beat_at - database_ahead
    return replace(beat, started_at=began, beat_at=beat_at, queue_oldest_at=oldest_at)
