"""Brings a node's copy to where the log is, as `api/snapshot/follower.py` does in SQL, and notices another ledger."""

from __future__ import annotations

from typing import NamedTuple

from tests.chaos.simulation.books import Books, Row
from tests.chaos.simulation.disk import Snapshot


class Head(NamedTuple):
    """Where the ledger is at `at`, and the event at the follower's own cursor."""

    at: float
    ledger_id: str
    generation: int
    seq: int
    event_id: str | None
    at_cursor: str | None


class Changes(NamedTuple):
    """Every row that changed behind a cursor."""

    rows: list[Row]
    by_key: dict[str, str]


def read_head(books: Books, now: float, cursor: int) -> Head:
    """One message."""
    return Head(now, books.ledger_id, books.generation, books.head, books.event_at(books.head), books.event_at(cursor))


def read(books: Books, now: float, cursor: int) -> tuple[Head, Changes]:
    """The head and what changed behind `cursor`, read at one moment.

    At two, a row that changed once more in between is behind the first and missing in the second.
    """
    changed = Changes([row for row in books.licenses.values() if row.seq > cursor], dict(books.by_key))
    return read_head(books, now, cursor), changed


def read_all(books: Books, now: float) -> tuple[Head, Changes]:
    """The same for a copy that is made anew."""
    return read_head(books, now, 0), Changes(list(books.licenses.values()), dict(books.by_key))


def is_same(copy: Snapshot, head: Head) -> bool:
    """Whether `copy` is one of the ledger whose head was read: places are used again after a restore."""
    if (copy.ledger_id, copy.generation) != (head.ledger_id, head.generation) or copy.seq > head.seq:
        return False
    return copy.event_id is None or copy.event_id == head.at_cursor


def catch_up(copy: Snapshot, head: Head, changes: Changes, polled_at: float, as_of: float) -> None:
    """Takes the changes in and moves the cursor. `as_of`: by the node's time, for the ledger's clock may be set."""
    copy.by_key = changes.by_key
    for row in changes.rows:
        copy.put(row)
    copy.seq, copy.event_id, copy.as_of, copy.polled_at, copy.complete = (
        head.seq,
        head.event_id,
        as_of,
        polled_at,
        True,
    )


def begun_anew(head: Head) -> Snapshot:
    """An empty copy, of no use before it is complete."""
    return Snapshot(head.ledger_id, head.generation)


def latest_calls(books: Books) -> list[float]:
    """When nodes, by their own time, last answered clients; as `api.snapshot.timekeeping` asks for it."""
    calls = [event.occurred_at for event in books.log[-200:] if event.origin is None and "call" in event.data]
    return calls[-20:]
