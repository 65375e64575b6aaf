"""The nodes of a ledger, as their heartbeats have it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from api.ledger.database import Database
from api.ledger.log import brief_reading
from api.ledger.tables import duty_marks, heartbeats
from api.stats.presence import FRESH_S, MARK, Asked, mark_name, presence
from failover.model import State

#: By how much this node's idea of ledger time may be off.
_SKEW_S = 1.0


def nodes(database: Database, now: float, fresh_s: float = FRESH_S) -> list[dict[str, Any]]:
    """One dict per node in the shape of `/stats`; `now` is ledger time. Raises `LedgerError`.

    `fresh_s`: how old the beat of a node that is there may be.
    A node that was started again is its youngest process, and a second one only while that beats as well.
    """
    query = select(heartbeats).order_by(heartbeats.c.rank, heartbeats.c.node, heartbeats.c.instance)
    with brief_reading(database) as connection:
        rows = connection.execute(query).all()
        asked = _asked(connection)
    # A beat of a moment to come is of a clock that was ahead, and older than any other.
    newest = {
        row.node: row.beat_at for row in sorted(rows, key=lambda row: (row.beat_at <= now + _SKEW_S, row.beat_at))
    }
    alive = [row for row in rows if row.beat_at == newest[row.node] or -_SKEW_S <= now - row.beat_at < fresh_s]
    return [
        {
            "id": row.node,
            "rank": row.rank,
            "role": row.role,
            "url": row.url,
            "beat_age_s": round(max(0.0, now - row.beat_at), 1),
            "applied_seq": row.applied_seq,
            "queue": row.queue,
            "version": row.version,
            "presence": presence(
                now - row.beat_at,
                row.beat_at,
                row.state == State.STOPPING,
                None if row.url is None else asked.get(mark_name(row.url)),
                fresh_s,
            ).value,
        }
        for row in alive
    ]


def _asked(connection: Connection) -> dict[str, Asked]:
    """What the leader's calls have found, by the names of their marks."""
    marks = select(duty_marks.c.name, duty_marks.c.value).where(duty_marks.c.name.startswith(MARK))
    return {name: Asked.from_mark(value) for name, value in connection.execute(marks)}
