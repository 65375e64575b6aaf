"""The nodes of a ledger, as their heartbeats have it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api.ledger.database import Database
from api.ledger.log import brief_reading
from api.ledger.tables import heartbeats

_FRESH_S = 6.0
#: By how much this node's idea of ledger time may be off.
_SKEW_S = 1.0


def nodes(database: Database, now: float) -> list[dict[str, Any]]:
    """One dict per node in the shape of `/stats`; `now` is ledger time. Raises `LedgerError`.

    A node that was started again is its youngest process, and a second one only while that beats as well.
    """
    query = select(heartbeats).order_by(heartbeats.c.rank, heartbeats.c.node, heartbeats.c.instance)
    with brief_reading(database) as connection:
        rows = connection.execute(query).all()
    # A beat of a moment to come is of a clock that was ahead, and older than any other.
    newest = {
        row.node: row.beat_at for row in sorted(rows, key=lambda row: (row.beat_at <= now + _SKEW_S, row.beat_at))
    }
    alive = [row for row in rows if row.beat_at == newest[row.node] or -_SKEW_S <= now - row.beat_at < _FRESH_S]
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
        }
        for row in alive
    ]
