"""The log as admins read it: by ascending `seq`, in pages or as a stream that is never whole in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import func, select

from api.admin import cursor as cursors
from api.admin import pages
from api.admin.schemas import moment
from api.ledger.log import Journal
from api.ledger.tables import events
from api.node.clock import timestamp
from api.problems import Malformed

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

#: Not a filter of events but of where to begin: a reader that follows the log names the last `seq` it has.
AFTER = "after"

_LIST = "events"
_CHUNK = 500
#: So many places of the log are looked through by one statement: a filter that few events match reads no more at a
#: time, and the connection is free in between. An index for each filter would cost every call its share of writing it.
_WINDOW = 20_000
#: How long a page goes on looking. One that is not full by then says where the next one begins.
_PAGE_S = 1.0


class EventLog:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        """A page may have fewer than `limit` events though more follow: `next` says so."""
        filters, place = _split(filters)
        wanted = pages.conditions(filters, FILTERS)
        pages.check_limit(limit)
        first, head = self._ends()
        begin = _behind(place, head) if cursor is None else cursors.decode(_LIST, cursor, int)
        after, until = max(begin, first - 1), time.monotonic() + _PAGE_S
        rows: list[Any] = []
        while after < head and len(rows) <= limit and time.monotonic() < until:
            found = self._window(after, head, wanted, limit + 1 - len(rows), indexed="license" in filters)
            rows, after = rows + found.rows, found.looked_until
        if len(rows) > limit:
            after = rows[limit - 1]["seq"]
        items = [_resource(row) for row in rows[:limit]]
        return {"items": items, "next": cursors.encode(_LIST, after) if after < head else None}

    def stream(self, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """What the log holds as this begins; events that come meanwhile would keep a busy node's stream from ending."""
        filters, place = _split(filters)
        wanted = pages.conditions(filters, FILTERS)
        first, head = self._ends()
        return self._all(wanted, max(_behind(place, head), first - 1), head, indexed="license" in filters)

    def newest(self, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """The same by descending `seq`, for people."""
        wanted = pages.conditions(filters, FILTERS)
        first, head = self._ends()
        return self._all_backwards(wanted, first - 1, head, indexed="license" in filters)

    def _all_backwards(self, wanted: list[Any], end: int, head: int, *, indexed: bool) -> Iterator[dict[str, Any]]:
        while head > end:
            after = end if indexed else max(end, head - _WINDOW)
            query = select(events).where(events.c.seq > after, events.c.seq <= head, *wanted)
            with self._journal.reading() as connection:
                rows: list[Any] = list(connection.execute(query.order_by(events.c.seq.desc()).limit(_CHUNK)).mappings())
            yield from map(_resource, rows)
            head = rows[-1]["seq"] - 1 if len(rows) == _CHUNK else after

    def _all(self, wanted: list[Any], after: int, head: int, *, indexed: bool) -> Iterator[dict[str, Any]]:
        while after < head:
            found = self._window(after, head, wanted, _CHUNK, indexed=indexed)
            yield from map(_resource, found.rows)
            after = found.looked_until

    def _ends(self) -> tuple[int, int]:
        """The first and the last place of the log; 1 and 0 where it is empty."""
        with self._journal.reading() as connection:
            first, last = connection.execute(select(func.min(events.c.seq), func.max(events.c.seq))).one()
        return first or 1, last or 0

    def _window(self, after: int, head: int, wanted: list[Any], limit: int, *, indexed: bool) -> _Window:
        """The first `limit` events behind place `after`, of as many as one statement may look through."""
        to = head if indexed else min(head, after + _WINDOW)
        query = select(events).where(events.c.seq > after, events.c.seq <= to, *wanted).order_by(events.c.seq)
        with self._journal.reading() as connection:
            rows = list(connection.execute(query.limit(limit)).mappings())
        return _Window(rows, rows[-1]["seq"] if len(rows) == limit else to)


def _split(filters: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """The filters without `after`, and what that names. Raises `Malformed`."""
    others = dict(filters)
    text = others.pop(AFTER, "0")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Malformed(AFTER, "must be a place of the log (seq), or -N for the last N places")
    return others, int(text)


def _behind(place: int, head: int) -> int:
    """The place behind which to begin: `place`, or so many before the last one where that is negative."""
    return place if place >= 0 else max(0, head + place)


class _Window(NamedTuple):
    """Some events, and the place up to which the log was looked through for them."""

    rows: list[Any]
    looked_until: int


def _resource(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in COLUMNS}
    times = {name: timestamp(row[name]) for name in ("occurred_at", "recorded_at")}
    return shown | times | {"data": msgspec.json.decode(row["data"])}
