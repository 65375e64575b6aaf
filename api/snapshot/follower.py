"""The follower: brings the snapshot to where the ledger's log is, and notices when the ledger is another one.

Changed rows carry the `seq` of their last change, so one poll reads exactly the rows that changed since its cursor.
The event at the cursor is checked on every poll: after a restore from a backup, places in the log are used again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, exists, literal_column, null, select

from api.ledger import migrate, tables
from api.ledger.database import Database
from api.ledger.errors import LedgerContradicts, LedgerUnavailable
from api.node.clock import Clock
from api.node.troubles import Trouble
from api.snapshot.adoption import ADOPTED, Found, adopted_by, copied_in, objection
from api.snapshot.copy import FOLLOWED, Position, Snapshot, source_of

#: The rows of a chunk are in memory at once, on machines that have little.
_CHUNK = 1_000
_GUARD_S = 20.0
#: How long copying one chunk may take.
_CHUNK_S = 10.0
#: SQLite has no clock but this machine's.
_NOW = "extract(epoch FROM clock_timestamp())::float8"
_DELETED: dict[str, Table] = {
    "license.deleted": tables.licenses,
    "policy.deleted": tables.policies,
}


class Head(msgspec.Struct, frozen=True):
    """Where the ledger is at `at` (its own time): its identity, and the last place of its log with the event there.

    `has_licenses`: whether it shows any.
    """

    at: float | None
    ledger_id: str
    generation: int
    seq: int
    event_id: str | None
    has_licenses: bool = True


def _nothing_queued(_license_id: str) -> bool:
    return False


class Follower:
    """The writer of a node's snapshot. `poll` raises `LedgerError`."""

    def __init__(
        self, database: Database, snapshot: Snapshot, clock: Clock, holds: Callable[[str], bool] = _nothing_queued
    ) -> None:
        """`holds`: whether events of this license wait in the node's queue."""
        self._holds = holds
        self._database = database
        self._snapshot = snapshot
        self._clock = clock
        self._source = source_of(database.url)
        #: Why the ledger must not take the copy's place, at the last poll.
        self.objection: str | None = None
        #: Whether the copy has licenses which the ledger, at the last poll, showed none of.
        self.is_alone = False

    def standing(self) -> Position | None:
        """Where the copy stands, if a look at the log's head may show that there is nothing to do."""
        position = self._snapshot.position()
        if position is None or not position.complete or self._snapshot.own() or self.objection or self.is_alone:
            return None
        return position if self._snapshot.count(tables.signing_keys) else None

    def stay(self, position: Position, polled_at: float) -> None:
        """The log was found where `position` is: what was copied is all that there was at `polled_at` (monotonic)."""
        as_of = self._clock.at(polled_at)  # by this node's time: the ledger's clock may have been set
        later = {"as_of": as_of, "polled_at": polled_at, "wall_skew": self._clock.wall_skew}
        with self._snapshot.writing() as writer:
            writer.stay(msgspec.structs.replace(position, **later))

    def poll(self) -> bool:
        """Catches up once; gives whether it had to begin anew."""
        sent = self._clock.monotonic()
        # Asked before the ledger is read: what is replayed by now is in what is read.
        settled = {id: times for id, times in self._snapshot.own() if not self._holds(id)}
        # What changes between two statements would be behind the head that was read, and missing in the copy until
        # the next poll, though its `as_of` is later than the change before.
        with self._guarded(self._database.reading_one_moment()) as connection:
            head = _head(connection)
            if head.at is not None:
                self._clock.sample(head.at, sent, self._clock.monotonic())
            as_of = self._clock.at(sent)  # by this node's time: the ledger's clock may have been set
            position = self._snapshot.position()
            goes_on = position is not None and position.complete and _same_ledger(connection, position, head)
            if position is not None and goes_on and not _adopted_between(connection, position.seq, head.seq):
                moved = self._position(head, as_of, sent, complete=True)
                self._catch_up(connection, position, moved, settled)
                self._settle(None, not head.has_licenses and self._snapshot.has_any(tables.licenses))
                return False
            objection = _objection(connection, head, self._snapshot)
        self._settle(objection, False)
        if objection is not None:
            raise LedgerContradicts(objection)
        self._begin_anew(head, as_of, sent)
        return True

    def _settle(self, objection: str | None, is_alone: bool) -> None:
        self.objection, self.is_alone = objection, is_alone

    @contextlib.contextmanager
    def _guarded(self, opened: AbstractContextManager[Connection]) -> Iterator[Connection]:
        with opened as connection, self._database.guarded(connection, _GUARD_S):
            yield connection

    def _catch_up(self, connection: Connection, position: Position, to: Position, settled: Mapping[str, int]) -> None:
        changed = (
            [(table, _rows_between(connection, table, position.seq, to.seq)) for table in FOLLOWED]
            if to.seq > position.seq
            else []
        )
        gone = _deleted_between(connection, position.seq, to.seq) if changed else []
        if not self._snapshot.count(tables.signing_keys):
            # The first node founds them with no event that says so, maybe after this copy was begun.
            changed.append((tables.signing_keys, _rows_between(connection, tables.signing_keys, -1, to.seq)))
        held = {id: _held(connection, id) for id in settled}
        with self._snapshot.writing() as writer:
            # First what is gone: its key may be another license's by now.
            for table, id in gone:
                writer.remove(table, id)
            for table, rows in changed:
                writer.put(table, rows)
            for id, times in settled.items():
                if writer.settle(id, times):
                    for table, rows in held[id]:
                        writer.put(table, rows)
            writer.move_to(to)

    def _position(self, head: Head, as_of: float, polled_at: float, *, complete: bool) -> Position:
        identity = (head.ledger_id, head.generation, head.seq, head.event_id)
        return Position(*identity, as_of, polled_at, complete, self._source, self._clock.wall_skew)

    def _begin_anew(self, head: Head, as_of: float, polled_at: float) -> None:
        """Copies all rows in chunks. What changes meanwhile has a `seq` above the head that was read first."""
        with self._snapshot.writing() as writer:
            writer.clear()
            writer.move_to(self._position(head, as_of, polled_at, complete=False))
        for table in FOLLOWED:
            self._copy(table)
        with self._snapshot.writing() as writer:
            writer.move_to(self._position(head, as_of, polled_at, complete=True))

    def _copy(self, table: Table) -> None:
        key = table.primary_key.columns.values()[0]
        last = ""
        while True:
            query = select(table).where(key > last).order_by(key).limit(_CHUNK)
            # Between two chunks the connection is free: what shares it, the heartbeat above all, must get through.
            # A transaction for each, in which a database that would hide rows fails.
            with self._guarded(self._database.reading_one_moment()) as connection:
                rows = [tuple(row) for row in connection.execute(query)]
            with self._snapshot.writing() as writer:
                writer.put(table, rows)
            if len(rows) < _CHUNK:
                return
            last = rows[-1][table.c.keys().index(key.name)]


def _head(connection: Connection) -> Head:
    ledger, log_head, events = tables.ledger, tables.log_head, tables.events
    at: Any = literal_column(_NOW) if connection.dialect.name == "postgresql" else null()
    # Asked for each time: what hides rows, or refuses them, is met here and not by a customer.
    shown = [exists(select(table.c.id)) for table in (tables.licenses, tables.machines, tables.policies)]
    columns = (at, ledger.c.ledger_id, ledger.c.generation, log_head.c.seq, events.c.event_id, *shown)
    query = select(*columns).select_from(
        ledger.join(log_head, ledger.c.id == log_head.c.id).outerjoin(events, events.c.seq == log_head.c.seq)
    )
    row = connection.execute(query).first()
    if row is None:
        raise LedgerUnavailable("its tables are there, and no ledger in them: is a restore under way?")
    return Head(*row[:6])


def require_leave(snapshot: Snapshot | None, database: Database) -> None:
    """Raises `LedgerContradicts` where the ledger must not take the place of the one that was copied; `LedgerError`.

    To be called before anything is founded in it. `snapshot`: this node's copy, None where there is none.
    """
    copied = None if snapshot is None else copied_in(snapshot)
    if snapshot is None or copied is None or not copied.has_licenses:
        return
    if database.is_missing:
        raise LedgerContradicts(Trouble.FILE_MOVED(file=database.file))
    if migrate.revision(database) is None:
        reason = objection(copied, Found(None))
    else:
        with database.reading() as connection:
            reason = _objection(connection, _head(connection), snapshot)
    if reason is not None:
        raise LedgerContradicts(reason)


def _objection(connection: Connection, head: Head, snapshot: Snapshot) -> str | None:
    """Why this ledger must not take the place of the one that was copied."""
    if head.has_licenses:
        return None
    position = snapshot.position()
    goes_on = position is not None and _same_ledger(connection, position, head)
    found = Found(head.ledger_id, head.generation, head.has_licenses, goes_on, adopted_by(connection))
    return objection(copied_in(snapshot), found)


def _adopted_between(connection: Connection, after: int, to: int) -> bool:
    """Whether an operator has adopted the ledger as it is, whatever copies of it hold."""
    events = tables.events.c
    query = select(events.seq).where(events.seq > after, events.seq <= to, events.type == ADOPTED)
    return to > after and connection.execute(query.limit(1)).first() is not None


def _same_ledger(connection: Connection, position: Position, head: Head) -> bool:
    if (position.ledger_id, position.generation) != (head.ledger_id, head.generation) or position.seq > head.seq:
        return False
    if position.seq == head.seq or position.event_id is None:
        return position.event_id == head.event_id or position.event_id is None
    at_cursor = select(tables.events.c.event_id).where(tables.events.c.seq == position.seq)
    return bool(connection.execute(at_cursor).scalar() == position.event_id)


def _rows_between(connection: Connection, table: Table, after: int, to: int) -> list[Any]:
    query = select(table).where(table.c.seq > after, table.c.seq <= to).order_by(table.c.seq)
    return [tuple(row) for row in connection.execute(query)]


def _held(connection: Connection, license_id: str) -> list[tuple[Table, list[Any]]]:
    """The license as the ledger has it, with its machines."""
    licenses, machines = tables.licenses, tables.machines
    queries = (
        (licenses, select(licenses).where(licenses.c.id == license_id)),
        (machines, select(machines).where(machines.c.license_id == license_id)),
    )
    return [(table, [tuple(row) for row in connection.execute(query)]) for table, query in queries]


def _deleted_between(connection: Connection, after: int, to: int) -> list[tuple[Table, str]]:
    events = tables.events
    query = select(events.c.type, events.c.license_id, events.c.machine_id, events.c.data).where(
        events.c.seq > after, events.c.seq <= to, events.c.type.in_(_DELETED)
    )
    return [
        (_DELETED[row.type], row.machine_id or row.license_id or msgspec.json.decode(row.data)["id"])
        for row in connection.execute(query)
    ]
