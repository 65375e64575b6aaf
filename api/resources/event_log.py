"""The log as admins read it: by ascending `seq`, in pages or as a stream that is never whole in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import func, select

from api.answers import timestamp
from api.ledger.log import Journal
from api.ledger.tables import events
from api.resources import cursor as cursors
from api.resources import pages
from api.resources.schemas import moment

COLUMNS = (
    "seq", "event_id", "type", "license_id", "machine_id", "node", "instance", "epoch", "mode", "occurred_at",
    "recorded_at", "data",
)  # fmt: skip

FILTERS: dict[str, pages.Filter] = {
    "license": lambda text: events.c.license_id == text,
    "type": lambda text: events.c.type == text,
    "node": lambda text: events.c.node == text,
    "since": lambda text: events.c.occurred_at >= moment(text),
    "until": lambda text: events.c.occurred_at < moment(text),
}

_LIST = "events"
_CHUNK = 500
#: A filter that few events of a long log match makes a chunk take its time.
_EXPORT_PATIENCE_S = 5.0


class EventLog:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        wanted = pages.conditions(filters, FILTERS)
        pages.check_limit(limit)
        after = 0 if cursor is None else cursors.decode(_LIST, cursor, int)
        rows = self._after(after, wanted, limit + 1)
        more = len(rows) > limit
        items = [_resource(row) for row in rows[:limit]]
        return {"items": items, "next": cursors.encode(_LIST, items[-1]["seq"]) if more else None}

    def stream(self, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """What the log holds as this begins; events that come meanwhile would keep a busy node's stream from ending."""
        wanted = pages.conditions(filters, FILTERS)
        with self._journal.reading(_EXPORT_PATIENCE_S) as connection:
            head = connection.scalar(select(func.max(events.c.seq))) or 0
        return self._chunks([*wanted, events.c.seq <= head])

    def _chunks(self, wanted: list[Any]) -> Iterator[dict[str, Any]]:
        after, rows = 0, None
        while rows is None or len(rows) == _CHUNK:
            rows = self._after(after, wanted, _CHUNK, _EXPORT_PATIENCE_S)
            yield from map(_resource, rows)
            after = rows[-1]["seq"] if rows else after

    def _after(self, seq: int, wanted: list[Any], limit: int, patience_s: float = 1.0) -> list[Any]:
        query = select(events).where(events.c.seq > seq, *wanted).order_by(events.c.seq).limit(limit)
        with self._journal.reading(patience_s) as connection:
            return list(connection.execute(query).mappings())


def _resource(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in COLUMNS}
    times = {name: timestamp(row[name]) for name in ("occurred_at", "recorded_at")}
    return shown | times | {"data": msgspec.json.decode(row["data"])}
