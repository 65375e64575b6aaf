"""What replay found and kept for the vendor to look at: conflicts, and events that were set aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import select

from api.admin import cursor as cursors
from api.admin import pages
from api.admin.rows import plain
from api.ledger.log import Journal
from api.ledger.tables import replay_findings
from api.node.clock import timestamp

_columns = replay_findings.c
_LIST = "findings"

FILTERS: dict[str, pages.Filter] = {
    "kind": lambda text: _columns.kind == text,
    "license": lambda text: _columns.license_id == text,
    "node": lambda text: _columns.node == text,
}


class Findings:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        """`{"items": [...], "next": ...}` by event. `limit` counts events, of which one may have two findings."""
        wanted = pages.conditions(filters, FILTERS)
        pages.check_limit(limit)
        if cursor is not None:
            wanted.append(_columns.event_id < cursors.decode(_LIST, cursor, str))
        ids = select(_columns.event_id).where(*wanted).distinct().order_by(_columns.event_id.desc()).limit(limit + 1)
        with self._journal.reading() as connection:
            found = list(connection.scalars(ids))
            query = select(replay_findings).where(*wanted, _columns.event_id.in_(found[:limit]))
            rows = connection.execute(query.order_by(_columns.event_id.desc(), _columns.kind)).mappings().all()
        next = cursors.encode(_LIST, found[limit - 1]) if len(found) > limit else None
        return {"items": [_resource(plain(row)) for row in rows], "next": next}


def _resource(row: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: row[name] for name in ("event_id", "kind", "license_id", "node")}
    return own | {"found_at": timestamp(row["found_at"]), "data": msgspec.json.decode(row["data"])}
