"""The ledger on SQLite: the embedded one of a single node, and the twin that tests compare Postgres with.

The same two lanes as on Postgres, as a few local statements each. A writer holds the file lock of `Database` and
`BEGIN IMMEDIATE`, so a transaction here is alone with the whole ledger. A node's snapshot is looked up in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from api.ledger.database import Database
from api.ledger.errors import require_kept
from api.ledger.records import Batch, Event, Finding, LicenseQuery, LicenseRecord, Tally
from api.ledger.rows import CHECK_COLUMNS, COLUMNS, DEPARTED, NEVER_CAME, changed_machines, known_from
from api.node.clock import Clock

# A query's members are found by their places in `LicenseQuery`.
_FROM = """
FROM json_each(:asks) AS j
LEFT JOIN licenses l ON l.key_hash = json_extract(j.value, '$[0]')
LEFT JOIN policies p ON p.id = l.policy
LEFT JOIN machines m ON m.license_id = l.id AND m.fingerprint = json_extract(j.value, '$[1]')
"""

#: For `look_up`: what a check needs to know.
LOOK_UP = f"SELECT :now, j.key, {CHECK_COLUMNS} {_FROM}"

# All that a write needs to know of a license. How many came is counted only where the policy lets few come.
_FULL_COLUMNS = COLUMNS.format(
    arrivals="""CASE WHEN json_extract(p.rules_json, '$.moves_per_30d') IS NULL THEN 0 ELSE (SELECT count(*)
        FROM machines s WHERE s.license_id = l.id AND s.created_at > :now - 2592000) END""",
    never_came=NEVER_CAME,
    departed=DEPARTED,
    stale="""(SELECT json_group_array(json_array(s.id, s.fingerprint, s.name, s.platform, s.excess,
        s.last_seen_at, s.created_at)) FROM (
        SELECT * FROM machines s WHERE s.license_id = l.id AND s.active
        AND json_extract(p.rules_json, '$.release_stale_days') IS NOT NULL
        ORDER BY coalesce(s.last_seen_at, s.created_at) LIMIT 64) s)""",
    recorded="{recorded}",
)

#: For `look_up`: all that a write needs to know, but not what was recorded.
LOOK_UP_FULLY = f"SELECT :now, j.key, {_FULL_COLUMNS.format(recorded='NULL, NULL')} {_FROM}"
_LOOK_UP_LOCKED = "".join(
    (
        "SELECT :now, j.key, ",
        _FULL_COLUMNS.format(recorded="e.data, e.occurred_at"),
        _FROM,
        "LEFT JOIN events e ON e.event_id = json_extract(j.value, '$[2]')",
    )
)

_HAS_EVENT = text("SELECT 1 FROM events WHERE event_id = :event_id")

_LICENSE = """
UPDATE licenses SET expires_at = ?, uses = ?, seats = ?, excess = ?, checked_in_at = ?, last_seen_at = ?, seq = ?
WHERE id = ?
"""
_MACHINE = """
INSERT INTO machines (id, license_id, fingerprint, name, platform, active, excess, heartbeat_at, last_seen_at,
    created_at, seat_at, culled, seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, platform = excluded.platform, active = excluded.active,
    excess = excluded.excess, heartbeat_at = excluded.heartbeat_at, last_seen_at = excluded.last_seen_at,
    created_at = CASE machines.created_at WHEN 0 THEN excluded.created_at ELSE machines.created_at END,
    seat_at = excluded.seat_at, culled = excluded.culled, seq = excluded.seq
"""
_EVENT = """
INSERT INTO events (seq, event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at,
    recorded_at, data, origin, origin_seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TALLY = """
INSERT INTO check_minutes (minute, code, valid, writer, count) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (minute, code, valid, writer) DO UPDATE SET count = count + excluded.count
"""
_IDEMPOTENCY = """
INSERT INTO idempotency_records (id, request_hash, answer_json, kid, salt, created_at) VALUES (?, ?, ?, ?, ?, ?)
"""
_FINDING = """
INSERT OR IGNORE INTO replay_findings (event_id, kind, license_id, node, found_at, data) VALUES (?, ?, ?, ?, ?, ?)
"""


def look_up(cursor: Any, sql: str, queries: Sequence[LicenseQuery], now: float) -> list[LicenseRecord]:
    """What `sql`, with the columns of `Row`, finds for all queries at one moment; here, or in a copy of the ledger.

    One statement for all takes half the time that one for each does.
    """
    rows = cursor.execute(sql, {"asks": _json(queries), "now": now}).fetchall()
    return known_from(rows, [query.fingerprint for query in queries])


class SqliteLedger:
    """See `store.Ledger`."""

    def __init__(self, database: Database, writer: str, clock: Clock) -> None:
        self.database = database
        self._writer = writer
        self._clock = clock

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        with self.database.reading() as connection:
            return look_up(_cursor(connection), LOOK_UP, queries, self._clock.now())

    def has_event(self, event_id: str) -> bool:
        with self.database.reading() as connection:
            return connection.execute(_HAS_EVENT, {"event_id": event_id}).first() is not None

    def append(self, batch: Batch) -> None:
        with self.database.writing() as connection:
            self._write(connection, batch)

    @contextlib.contextmanager
    def transaction(self, queries: Sequence[LicenseQuery], *, skip_locked: bool = False) -> Iterator[_Transaction]:  # noqa: ARG002 - a file has no rows that others lock
        # A writer is alone with the whole file: there is nothing in it that others could hold.
        with self.database.writing() as connection:
            known = look_up(_cursor(connection), _LOOK_UP_LOCKED, queries, self._clock.now())
            yield _Transaction(self, connection, known)

    def is_blocked(self) -> bool:
        return self.database.is_being_written()

    def _write(self, connection: Connection, batch: Batch) -> None:
        cursor = _cursor(connection)
        _write_all(cursor, "check_minutes", _TALLY, [_tally_row(tally, self._writer) for tally in batch.tallies])
        cursor.executemany(_FINDING, [_finding_row(finding) for finding in batch.findings])
        if batch.record is not None:
            _write_all(cursor, "idempotency_records", _IDEMPOTENCY, [msgspec.structs.astuple(batch.record)])
        if not batch.events:
            return
        count = len(batch.events)
        _write_all(cursor, "log_head", "UPDATE log_head SET seq = seq + ? WHERE id = 1", [(count,)])
        seq = cursor.execute("SELECT seq FROM log_head").fetchone()[0]
        _write_all(cursor, "licenses", _LICENSE, [_license_row(change.after, seq) for change in batch.changes])
        for change in batch.changes:
            machines = changed_machines(change.before, change.after)
            rows = [(*msgspec.structs.astuple(machine), seq) for machine in machines]
            _write_all(cursor, "machines", _MACHINE, rows)
        cursor.executemany(*_touch("licenses", [(touch.at, touch.license_id) for touch in batch.touches]))
        cursor.executemany(*_touch("machines", [(touch.at, touch.machine_id) for touch in batch.touches]))
        now = self._clock.now()
        rows = [_event_row(event, seq - count + i, now) for i, event in enumerate(batch.events, start=1)]
        _write_all(cursor, "events", _EVENT, rows)


class _Transaction:
    """See `store.Transaction`."""

    def __init__(self, ledger: SqliteLedger, connection: Connection, known: list[LicenseRecord]) -> None:
        self.known = known
        self._ledger = ledger
        self._connection = connection

    def commit(self, batch: Batch) -> None:
        self._ledger._write(self._connection, batch)


def _write_all(cursor: Any, table: str, sql: str, rows: list[tuple[Any, ...]]) -> None:
    """Raises `LedgerDropped` where a trigger keeps rows out."""
    if rows:
        require_kept(table, cursor.executemany(sql, rows).rowcount, len(rows))


def _cursor(connection: Connection) -> Any:
    raw: Any = connection.connection.driver_connection
    return raw.cursor()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _touch(table: str, rows: list[tuple[Any, ...]]) -> tuple[str, list[tuple[Any, ...]]]:
    return f"UPDATE {table} SET last_seen_at = ? WHERE id = ?", rows  # noqa: S608 - two constant names


def _license_row(holding: Any, seq: int) -> tuple[Any, ...]:
    license = holding.license
    counts = (holding.seats, holding.excess)
    return (license.expires_at, license.uses, *counts, license.checked_in_at, license.last_seen_at, seq, license.id)


def _event_row(event: Event, seq: int, now: float) -> tuple[Any, ...]:
    *values, _, origin, origin_seq = msgspec.structs.astuple(event)
    return (seq, *values, now, _json(event.data), origin, origin_seq)


def _finding_row(finding: Finding) -> tuple[Any, ...]:
    *values, data = msgspec.structs.astuple(finding)
    return (*values, _json(data))


def _tally_row(tally: Tally, writer: str) -> tuple[Any, ...]:
    return (tally.minute, tally.code, tally.valid, writer, tally.count)
