"""The log as admins' changes write it: one transaction each, ended by the one message that moves the log's head.

On Postgres the head is never locked over a round trip: the event, the `seq` of the changed rows and COMMIT travel
together. A change of licenses locks their rows first, in id order, as the client calls do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Delete, Table, Update, func, insert, select, update

from api.ids import new_id
from api.ledger import search_index, tables
from api.ledger.database import Database
from api.ledger.errors import require_kept
from api.ledger.records import Event, IdempotencyRecord
from api.node.clock import Clock
from api.node.identity import Node
from failover.session import Limits

#: More patience than a client call has, and still an end to it.
_LIMITS = Limits(statement_ms=10_000, lock_ms=1_000, idle_ms=10_000)
_GUARD_S = 60.0
#: A worker may have one connection for all: what an admin reads must not keep it from the customers.
_READ_S = 1.0
_READ_LOCK_MS = 500
#: Several statements may be read on one connection, and a frozen server holds it no longer than this.
_READ_GUARD_S = 5.0

_EVENTS = """
INSERT INTO events (seq, event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at,
    recorded_at, data)
SELECT head.seq - %(count)s + x.i, x.event_id, x.type, x.license_id, x.machine_id, x.node, x.instance, x.epoch, x.mode,
    x.occurred_at, extract(epoch FROM clock_timestamp())::float8, x.data
FROM head, ROWS FROM (json_to_recordset(%(events)s::json) AS (event_id text, type text, license_id text,
    machine_id text, node text, instance text, epoch bigint, mode text, occurred_at float8, data text))
    WITH ORDINALITY AS x(event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at, data, i)
RETURNING 1
"""

Stamped = Mapping[Table, Sequence[str]]


@contextlib.contextmanager
def brief_reading(database: Database, patience_s: float = _READ_S) -> Iterator[Connection]:
    """`Database.reading` on which each statement may take `patience_s` on Postgres. Raises `LedgerError`."""
    limits = Limits(round(patience_s * 1000), _READ_LOCK_MS, 0)
    with database.reading(limits) as connection, database.guarded(connection, _READ_GUARD_S + patience_s):
        yield connection


class Journal:
    """Opens changes on one ledger in the name of one node."""

    def __init__(self, database: Database, node: Node, clock: Clock) -> None:
        self.database = database
        self._node = node
        self.clock = clock

    def now(self) -> float:
        """Ledger time, Unix seconds."""
        return self.clock.now()

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """One transaction; leaving it without `Change.commit` changes nothing. Raises `LedgerError`."""
        with self.database.writing(_LIMITS) as connection, self.database.guarded(connection, _GUARD_S):
            change = Change(self, connection)
            yield change
            if not change.committed:
                connection.exec_driver_sql("ROLLBACK")

    @contextlib.contextmanager
    def reading(self, patience_s: float = _READ_S) -> Iterator[Connection]:
        """A connection on which each statement stands alone and may take `patience_s`. Raises `LedgerError`:

        `LedgerBusy` where it took longer, or no connection was free: the ledger itself is there.
        """
        with brief_reading(self.database, patience_s) as connection:
            yield connection

    def event(self, type: str, *, license_id: str | None = None, machine_id: str | None = None, **data: Any) -> Event:
        """An event of now. `data` becomes its JSON: never a license key, never a token."""
        node = self._node
        return Event(
            event_id=new_id(),
            type=type,
            license_id=license_id,
            machine_id=machine_id,
            node=node.id,
            instance=node.instance,
            epoch=node.epoch,
            mode=node.mode,
            occurred_at=self.now(),
            data=data,
        )


class Change:
    """A transaction in the making: statements on `connection`, then `commit`."""

    def __init__(self, journal: Journal, connection: Connection) -> None:
        self.connection = connection
        self.committed = False
        self._journal = journal

    def commit(self, event: Event, stamped: Stamped | None = None, record: IdempotencyRecord | None = None) -> None:
        """Appends `event`, gives the rows of `stamped` (ids by table) its `seq`, and ends the transaction.

        Raises `LedgerDropped` where one of these rows, which were inserted or changed just now, is not there.
        """
        self.keep(record)
        self.commit_all([event], stamped)

    def update(self, statement: Update | Delete) -> None:
        """Executes what changes, or deletes, one row that is there. Raises `LedgerDropped` where it does not."""
        require_kept(statement.table.description, self.connection.execute(statement).rowcount, 1)

    def keep(self, record: IdempotencyRecord | None) -> None:
        """Writes `record`, if there is one, and has it committed even where no event follows."""
        if record is not None:
            table = tables.idempotency_records
            self.connection.execute(insert(table), msgspec.structs.asdict(record))
            kept = self.connection.execute(select(func.count()).where(table.c.id == record.id)).scalar_one()
            require_kept(table.name, kept, 1)
            self.committed = True

    def commit_all(self, events: Sequence[Event], stamped: Stamped | None = None) -> None:
        """Appends `events`, gives the rows of `stamped` the last one's `seq`, and ends the transaction."""
        search_index.fill(self.connection, (stamped or {}).get(tables.licenses, ()))
        append = self._append_sqlite if self._journal.database.is_sqlite else self._append_postgres
        append(events, stamped or {})
        self.committed = True

    def _append_postgres(self, events: Sequence[Event], stamped: Stamped) -> None:
        """Whether all is there is found out in the same message: what a trigger kept out is not committed around."""
        parts = ["WITH head AS (UPDATE log_head SET seq = seq + %(count)s WHERE id = 1 RETURNING seq)"]
        parts += [
            f", kept_{table.name} AS (UPDATE {table.name} SET seq = head.seq FROM head "  # noqa: S608 - our own names
            f"WHERE {table.name}.{_key(table)} = ANY(%(ids_{table.name})s) RETURNING 1)"
            for table in stamped
        ]
        parts.append(f", kept_events AS ({_EVENTS}) SELECT ")
        meant = {table.name: len(set(ids)) for table, ids in stamped.items()} | {"events": len(events)}
        parts.append(
            ", ".join(
                f"require_kept('{name}', (SELECT count(*) FROM kept_{name}), {count})"  # noqa: S608 - our own names
                for name, count in meant.items()
            )
        )
        ids = {f"ids_{table.name}": list(ids) for table, ids in stamped.items()}
        rows = msgspec.json.encode([_columns(event) for event in events]).decode()
        self.connection.exec_driver_sql("".join(parts) + "; COMMIT", ids | {"count": len(events), "events": rows})

    def _append_sqlite(self, events: Sequence[Event], stamped: Stamped) -> None:
        head, count = tables.log_head, len(events)
        self.update(update(head).values(seq=head.c.seq + count))
        seq = self.connection.execute(select(head.c.seq)).scalar_one()
        now = self._journal.now()
        places = enumerate(events, start=seq - count + 1)
        rows_of_events = [_columns(event) | {"seq": at, "recorded_at": now} for at, event in places]
        self.connection.execute(insert(tables.events), rows_of_events)
        last = select(func.count()).where(tables.events.c.seq > seq - count)
        require_kept("events", self.connection.execute(last).scalar_one(), count)
        for table, ids in stamped.items():
            rows = [(seq, id) for id in ids]
            sql = f"UPDATE {table.name} SET seq = ? WHERE {_key(table)} = ?"  # noqa: S608 - our own names
            if rows:
                require_kept(table.name, self.connection.exec_driver_sql(sql, rows).rowcount, len(rows))


def _key(table: Table) -> str:
    return table.primary_key.columns.values()[0].name


def _columns(event: Event) -> dict[str, Any]:
    return msgspec.structs.asdict(event) | {"data": msgspec.json.encode(event.data).decode()}
