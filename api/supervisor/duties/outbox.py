"""The outbox: notices for people. The intent is committed under the fence; what sends it reads here.

An effect outside the database cannot be fenced: the sender of an entry names its `id`, which is the same at every try,
and marks it as sent under the fence. Only the leader numbers entries, one transaction after the other, so a reader
that pages by `number` misses none.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from api.ledger import tables
from api.ledger.records import Event
from api.node.clock import timestamp
from api.supervisor.duties.rows import mark, set_mark
from api.supervisor.duties.terms import Writing

_CHUNK = 200
_LAST_FAILOVER = "failovers told"
_ENTRIES = uuid.UUID("5b1f7d0e-52f4-5a0c-8c2e-7f5f0a9f3f61")

_outbox, _failovers, _findings = tables.outbox.c, tables.failovers.c, tables.replay_findings.c


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One notice. `kind` is an event's type, `failover.<kind>` or `replay.<kind>`; `data` is JSON-ready."""

    id: str
    kind: str
    license_id: str | None
    data: dict[str, Any]
    number: int = 0
    created_at: float = 0.0


def enqueue(writing: Writing, entries: Sequence[Entry]) -> None:
    """Puts entries into the outbox, committed with the rest of the transaction or not at all."""
    if not entries:
        return
    last = writing.connection.execute(select(func.max(_outbox.number))).scalar() or 0
    rows = [
        {
            "number": number,
            "id": entry.id,
            "kind": entry.kind,
            "license_id": entry.license_id,
            "created_at": writing.now,
            "data": msgspec.json.encode(entry.data).decode(),
        }
        for number, entry in enumerate(entries, start=last + 1)
    ]
    writing.connection.execute(insert(tables.outbox).values(rows))


def of(event: Event) -> Entry:
    """The entry that tells of `event`; its id is the event's."""
    machine = {} if event.machine_id is None else {"machine_id": event.machine_id}
    return Entry(id=event.event_id, kind=event.type, license_id=event.license_id, data=event.data | machine)


def enqueue_cluster_notices(writing: Writing) -> bool:
    """Enqueues failovers and replay findings, each once; gives whether there may be more."""
    hands, found = _changes_of_hands(writing), _found_at_replay(writing)
    enqueue(writing, hands + found)
    return _CHUNK in (len(hands), len(found))


def unsent(connection: Connection, after: int = 0, limit: int = 100) -> list[Entry]:
    """The entries above `after` that have not been sent, in their order: a page; its last `number` is the cursor."""
    columns = (_outbox.id, _outbox.kind, _outbox.license_id, _outbox.data, _outbox.number, _outbox.created_at)
    query = select(*columns).where(_outbox.sent_at.is_(None), _outbox.number > after)
    rows = connection.execute(query.order_by(_outbox.number).limit(limit)).mappings()
    return [Entry(**{**row, "data": msgspec.json.decode(row["data"])}) for row in rows]


def mark_sent(writing: Writing, ids: Sequence[str]) -> None:
    """Marks entries as sent; those that are marked already keep their time."""
    chosen = _outbox.id.in_(ids) & _outbox.sent_at.is_(None)
    writing.connection.execute(update(tables.outbox).where(chosen).values(sent_at=writing.now))


def _changes_of_hands(writing: Writing) -> list[Entry]:
    # An epoch is committed before the next one is taken, so nothing comes late below the mark.
    last_epoch = mark(writing.connection, _LAST_FAILOVER)
    query = select(tables.failovers).where(_failovers.epoch > last_epoch).order_by(_failovers.epoch).limit(_CHUNK)
    rows = writing.connection.execute(query).all()
    if rows:
        set_mark(writing.connection, _LAST_FAILOVER, rows[-1].epoch)
    ledger = writing.connection.execute(select(tables.ledger.c.ledger_id)).scalar_one() if rows else ""
    return [
        Entry(
            id=_same_id("failover", ledger, str(row.epoch)),
            kind=f"failover.{row.kind}",
            license_id=None,
            data={
                "at": timestamp(row.at),
                "from": row.from_node,
                "to": row.to_node,
                "epoch": row.epoch,
                "gap_s": None if row.gap_s is None else round(row.gap_s, 1),
            },
        )
        for row in rows
    ]


def _found_at_replay(writing: Writing) -> list[Entry]:
    query = select(tables.replay_findings).where(_findings.noticed.is_(False)).order_by(_findings.found_at)
    rows = writing.connection.execute(query.limit(_CHUNK)).all()
    for kind in {row.kind for row in rows}:
        ids = [row.event_id for row in rows if row.kind == kind]
        chosen = (_findings.kind == kind) & _findings.event_id.in_(ids)
        writing.connection.execute(update(tables.replay_findings).where(chosen).values(noticed=True))
    return [
        Entry(
            id=_same_id("replay", row.event_id, row.kind),
            kind=f"replay.{row.kind}",
            license_id=row.license_id,
            data={
                "event_id": row.event_id,
                "node": row.node,
                "found_at": timestamp(row.found_at),
                "found": msgspec.json.decode(row.data),
            },
        )
        for row in rows
    ]


def _same_id(*names: str) -> str:
    """The id under which this notice is sent."""
    return str(uuid.uuid5(_ENTRIES, "\x1f".join(names)))
