"""Exports: what streams to its reader, however long, as CSV or as a line of JSON for each row."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from api.admin import event_log
from api.admin.bulk import COLUMNS
from api.admin.csv_text import NDJSON_BROKEN_OFF, marked_if_broken, to_csv
from api.admin.store import Resources
from api.admin.token_store import Scope
from api.checks.schemas import shown_name
from api.problems import Malformed, Problem
from api.web.admin_guard import AdminGuard, add_route, page_of, require_scope, rows_of
from api.web.json_response import json_response

#: How many exports a node sends at a time. Each has a thread for as long as its reader takes.
_EXPORTS = 4
_EXPORT_RETRY_S = 5
_CHUNK = 500

CSV, NDJSON = "text/csv", "application/x-ndjson"


class Exports:
    """The places for exports of one worker, which are few."""

    def __init__(self, workers: int) -> None:
        self._free = threading.BoundedSemaphore(max(1, _EXPORTS // workers))

    @contextlib.contextmanager
    def place(self) -> Iterator[contextlib.ExitStack]:
        """Takes a place, until the stack is closed. Raises `RATE_LIMITED`."""
        if not self._free.acquire(blocking=False):
            detail = "this node sends as many exports as it does at a time"
            raise Problem("RATE_LIMITED", detail, retry_after=_EXPORT_RETRY_S)
        with contextlib.ExitStack() as held:
            held.callback(self._free.release)
            yield held


def add_events(admin: Blueprint, guard: AdminGuard, resources: Resources, exports: Exports) -> None:
    def events() -> Response:
        query = guard.read(lists=True)
        if wants_csv():
            count = rows_of(query)
            guard.started()
            with exports.place() as held:
                return csv_of(event_log.COLUMNS, islice(resources.events(query), count), held)
        limit, cursor = page_of(query)
        guard.started()
        return json_response(resources.events_page(query, limit, cursor))

    add_route(admin, "/events", "GET", "events", events)


def add_export(admin: Blueprint, guard: AdminGuard, resources: Resources, exports: Exports) -> None:
    """Every license as a row that an import takes, for the day when this ledger is left or lost."""

    def export() -> Response:
        query, scopes = guard.exporter()
        with_hashes = _flag(query, "hashes")
        if with_hashes:
            require_scope(scopes, Scope.LICENSES_WRITE)
        guard.started()
        columns = COLUMNS if with_hashes else tuple(name for name in COLUMNS if name != "key_hash")
        with exports.place() as held:
            rows = resources.export_licenses()
            if request.accept_mimetypes.best_match([CSV, NDJSON]) == NDJSON:
                return ndjson_of(columns, rows, held)
            return csv_of(columns, rows, held)

    add_route(admin, "/licenses/export", "GET", "licenses-export", export)


def wants_csv() -> bool:
    """Whether who asks would rather have CSV than JSON."""
    return request.accept_mimetypes.best_match(["application/json", CSV]) == CSV


def csv_of(columns: Sequence[str], rows: Iterator[dict[str, Any]], held: contextlib.ExitStack) -> Response:
    """An answer of CSV that releases what is `held` when it has been sent, or its client has gone."""
    text = marked_if_broken(to_csv(columns, _begun(rows)))
    return _streamed(text, f"{CSV}; charset=utf-8", held)


def ndjson_of(columns: Sequence[str], rows: Iterator[dict[str, Any]], held: contextlib.ExitStack) -> Response:
    """The same as a line of JSON for each row."""
    text = marked_if_broken(_lines(columns, _begun(rows)), NDJSON_BROKEN_OFF)
    return _streamed(text, NDJSON, held)


def _begun(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`rows`, of which the first is read before the answer begins: a ledger out of reach is still a 503."""
    first = list(islice(rows, 1))
    return chain(first, rows)


def _lines(columns: Sequence[str], rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    while chunk := list(islice(rows, _CHUNK)):
        shown = ({name: row[name] for name in columns} for row in chunk)
        yield "".join(msgspec.json.encode(row).decode() + "\n" for row in shown)


def _streamed(text: Iterator[str], content_type: str, held: contextlib.ExitStack) -> Response:
    sending = held.pop_all()
    answer = Response(_while_held(text, sending), content_type=content_type)
    answer.call_on_close(sending.close)  # where nothing of it was taken
    return answer


def _flag(query: dict[str, str], name: str) -> bool:
    """Takes a yes or no out of `query`, which may hold nothing else. Raises `Malformed`."""
    text = query.pop(name, "false")
    for other in query:
        raise Malformed(shown_name(other), f"is not known: this call takes {name} only")
    if text not in ("true", "false"):
        raise Malformed(name, "must be true or false")
    return text == "true"


def _while_held(text: Iterator[str], held: contextlib.ExitStack) -> Iterator[str]:
    with held:
        yield from text
