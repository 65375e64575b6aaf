"""The snapshot: this node's own SQLite copy of what decisions need, read by its workers, written by its follower.

It can always be made anew, so nothing waits for the disk. A row is replaced only by one with a greater `seq`: a
worker's own write may run ahead of the follower, and what the follower read before it must not undo it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from sqlalchemy import Column, Table
from sqlalchemy.dialects import sqlite

from api import logs
from api.ledger import tables
from api.ledger.records import Change, LicenseQuery, LicenseRecord
from api.ledger.rows import changed_machines
from api.ledger.sqlite import LOOK_UP, LOOK_UP_FULLY, look_up
from failover.session import DEFAULT_SCHEMA, taken_apart

_log = logs.get("snapshot")

#: The file's name in `DATA_DIR`.
SNAPSHOT_NAME = "snapshot.db"

#: The tables that are followed, in the order in which their rows may refer to one another.
FOLLOWED: tuple[Table, ...] = (
    tables.policies,
    tables.licenses,
    tables.machines,
    tables.tokens,
    tables.signing_keys,
)

_POSITION = """
CREATE TABLE IF NOT EXISTS position (
    id INTEGER PRIMARY KEY CHECK (id = 1), ledger_id TEXT NOT NULL, generation INTEGER NOT NULL,
    seq INTEGER NOT NULL, event_id TEXT, as_of REAL NOT NULL, polled_at REAL NOT NULL, complete INTEGER NOT NULL,
    source TEXT NOT NULL, wall_skew REAL NOT NULL
)
"""
#: Licenses over which this node put what it queued, and how often it has written them since.
_OWN = "CREATE TABLE IF NOT EXISTS own (license_id TEXT PRIMARY KEY, times INTEGER NOT NULL)"
_OWN_AT_ONCE = 500
# Not unique: two keys that change hands within one poll meet here for a moment. The ledger is what keeps them unique.
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS licenses_by_key ON licenses (key_hash)",
    "CREATE INDEX IF NOT EXISTS machines_by_fingerprint ON machines (license_id, fingerprint)",
    "CREATE INDEX IF NOT EXISTS machines_by_arrival ON machines (license_id, created_at)",
    "CREATE INDEX IF NOT EXISTS machines_departed ON machines (license_id) WHERE NOT active",
)
#: Raise it with every change of these tables, the followed ones included: an older file is then made anew.
_FORMAT = 4
_OTHER_FORMAT = -1
#: What this node itself did to a row is put over it and keeps its `seq`: the ledger's row, once changed, replaces it.
_PUT_LICENSE = """
UPDATE licenses SET expires_at = ?, uses = ?, seats = ?, excess = ?, checked_in_at = ?, last_seen_at = ?
WHERE id = ? AND seq <= ?
"""
_PUT_MACHINE = """
INSERT INTO machines (id, license_id, fingerprint, name, platform, active, excess, heartbeat_at, last_seen_at,
    created_at, seat_at, culled, seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, platform = excluded.platform, active = excluded.active,
    excess = excluded.excess, heartbeat_at = excluded.heartbeat_at, last_seen_at = excluded.last_seen_at,
    created_at = CASE machines.created_at WHEN 0 THEN excluded.created_at ELSE machines.created_at END,
    seat_at = excluded.seat_at, culled = excluded.culled
"""


class Position(msgspec.Struct, frozen=True):
    """Up to where which ledger has been copied. `as_of`: when it was last looked at, in ledger time.

    `polled_at`: the same moment or a little before it, on the monotonic clock that this machine's processes share.
    `source`: where that ledger is, as a digest; `wall_skew`: by how many seconds this machine's clock was ahead of it.
    """

    ledger_id: str
    generation: int
    seq: int
    event_id: str | None
    as_of: float
    polled_at: float
    complete: bool
    source: str = ""
    wall_skew: float = 0.0


def source_of(url: str) -> str:
    """Which ledger `url` names: the same for another password or user, another for another host, database or schema."""
    plain, schema = taken_apart(url)
    place = re.sub(r"^[^:]*://([^@/]*@)?", "", plain).partition("?")[0]
    if schema not in (None, DEFAULT_SCHEMA):
        place += f" {schema}"
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def open_snapshot(path: Path) -> Snapshot:
    """The snapshot at `path`, for its one writer; one that is damaged, or of another format, is made anew.

    Raises OSError and `sqlite3.Error`: a file that is only busy, or a disk that is full, is not damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Snapshot(path)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, _OTHER_FORMAT):
            raise
        _log.error("the snapshot is of no use and is made anew", extra={"reason": str(error)})
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return Snapshot(path)


class Snapshot:
    """One process's hold on the file. Safe from any thread."""

    def __init__(self, path: Path, *, reading: bool = False) -> None:
        """`reading`: never creates, changes or mends anything. Raises `sqlite3.Error`."""
        mode = "ro" if reading else "rwc"
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}", uri=True, check_same_thread=False, isolation_level=None, timeout=5.0
        )
        self._lock = threading.Lock()
        try:
            self._prepare(reading)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        """What the copy knows of each license with these keys, and of each machine: all of one moment."""
        with self._lock:
            return look_up(self._connection, LOOK_UP, queries, 0.0)

    def look_up_fully(self, queries: Sequence[LicenseQuery], now: float) -> list[LicenseRecord]:
        """The same with all that a write needs to know: the seats counted, and the machines longest unseen."""
        with self._lock:
            return look_up(self._connection, LOOK_UP_FULLY, queries, now)

    def has_key(self, key_hash: str) -> bool:
        """Whether a license with this key was there at the last look."""
        with self._lock:
            found = self._connection.execute("SELECT 1 FROM licenses WHERE key_hash = ?", (key_hash,)).fetchone()
        return found is not None

    def has_row(self, table: Table, id: str) -> bool:
        """Whether a row of this id was there at the last look."""
        with self._lock:
            query = f"SELECT 1 FROM {table.name} WHERE {_key(table)} = ?"  # noqa: S608 - our own names
            return self._connection.execute(query, (id,)).fetchone() is not None

    def license_of_machine(self, id: str) -> str | None:
        """The id of the license that this machine was one of at the last look."""
        with self._lock:
            row = self._connection.execute("SELECT license_id FROM machines WHERE id = ?", (id,)).fetchone()
        return None if row is None else str(row[0])

    def is_own(self, license_id: str) -> bool:
        """Whether this license's rows hold what this node queued."""
        with self._lock:
            query = "SELECT 1 FROM own WHERE license_id = ?"
            return self._connection.execute(query, (license_id,)).fetchone() is not None

    def ids_of(self, key_hash: str) -> tuple[str | None, set[str]]:
        """The id of the license of this key, and those of its active machines."""
        query = """
            SELECT l.id, m.id FROM licenses l LEFT JOIN machines m ON m.license_id = l.id AND m.active
            WHERE l.key_hash = ?
        """
        with self._lock:
            rows = self._connection.execute(query, (key_hash,)).fetchall()
        return (rows[0][0] if rows else None, {machine for _, machine in rows if machine is not None})

    def position(self) -> Position | None:
        """Where the copy stands; None for one that was never begun."""
        with self._lock:
            row = self._connection.execute(
                f"SELECT {', '.join(Position.__struct_fields__)} FROM position"  # noqa: S608 - our own names
            ).fetchone()
        if row is None:
            return None
        return msgspec.convert(dict(zip(Position.__struct_fields__, row, strict=True)), Position, strict=False)

    def own(self) -> list[tuple[str, int]]:
        """Some of the licenses whose rows hold what this node queued; see `SnapshotWriter.settle`."""
        with self._lock:
            return self._connection.execute("SELECT license_id, times FROM own LIMIT ?", (_OWN_AT_ONCE,)).fetchall()

    def count(self, table: Table) -> int:
        with self._lock:
            return int(self._connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])  # noqa: S608 - our own names

    def has_any(self, table: Table) -> bool:
        with self._lock:
            return self._connection.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone() is not None  # noqa: S608 - our own names

    def rows(self, table: Table, columns: Sequence[Column[Any]]) -> list[tuple[Any, ...]]:
        """All rows of a small table: these columns of each."""
        names = ", ".join(column.name for column in columns)
        with self._lock:
            return self._connection.execute(f"SELECT {names} FROM {table.name}").fetchall()  # noqa: S608 - our own names

    def forget_machines(self, before: float) -> None:
        """Those without a seat that last moved before that moment: the ledger forgets them as well."""
        with self.writing():
            ended = "NOT active AND created_at < :before AND coalesce(seat_at, heartbeat_at, created_at) < :before"
            self._connection.execute(f"DELETE FROM machines WHERE {ended}", {"before": before})  # noqa: S608 - constants

    @contextlib.contextmanager
    def writing(self) -> Iterator[SnapshotWriter]:
        """One transaction: readers see all of it or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield SnapshotWriter(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                # A disk that is full may have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _prepare(self, reading: bool) -> None:
        # What is mapped counts as the memory of each process that has read it: all of 100,000 licenses were 53 MB.
        for pragma in ("mmap_size=16777216", "cache_size=-1024"):
            self._connection.execute(f"PRAGMA {pragma}")
        format = self._connection.execute("PRAGMA user_version").fetchone()[0]
        empty = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if format != _FORMAT and not (empty and not reading):
            error = sqlite3.DatabaseError(f"its format is {format}, and {_FORMAT} is needed")
            error.sqlite_errorcode = _OTHER_FORMAT
            raise error
        if not reading:
            for pragma in ("journal_mode=WAL", "synchronous=OFF"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._make_tables()

    def _make_tables(self) -> None:
        with self.writing():
            self._connection.execute(_POSITION)
            self._connection.execute(_OWN)
            for table in FOLLOWED:
                names = ", ".join(_column(column) for column in table.columns)
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({names})")
            for index in _INDEXES:
                self._connection.execute(index)
            self._connection.execute(f"PRAGMA user_version = {_FORMAT}")


class SnapshotWriter:
    """What may be done within `Snapshot.writing`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def put(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Takes rows of all the table's columns in, each unless a newer one is there."""
        if not rows:
            return
        names = [column.name for column in table.columns]
        key = _key(table)
        changes = ", ".join(f"{name} = excluded.{name}" for name in names if name != key)
        self._connection.executemany(
            f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - our own names
            f"ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE excluded.seq > {table.name}.seq",
            rows,
        )

    def put_own(self, change: Change, seq: int, *, queued: bool = False) -> None:
        """Takes in what this node itself made of a license that it knew as of `seq`, unless newer rows are there.

        `queued`: without the ledger, whose own rows are to take the place of these once the queue is replayed.
        """
        license = change.after.license
        marked = "INSERT INTO own VALUES (?, 1) ON CONFLICT (license_id) DO UPDATE SET times = times + 1"
        counted = "UPDATE own SET times = times + 1 WHERE license_id = ?"
        self._connection.execute(marked if queued else counted, (license.id,))
        counts = (license.expires_at, license.uses, change.after.seats, change.after.excess)
        row = (*counts, license.checked_in_at, license.last_seen_at, license.id, seq)
        if self._connection.execute(_PUT_LICENSE, row).rowcount:
            machines = changed_machines(change.before, change.after)
            self._connection.executemany(_PUT_MACHINE, [msgspec.structs.astuple(machine) for machine in machines])

    def settle(self, id: str, times: int) -> bool:
        """Forgets this license's rows, for the ledger's to be put: what was queued is in those.

        Where it was in them all along, by a commit that was in doubt, replay changed nothing, and no later row would
        ever come. Gives False, and forgets nothing, where this node has written it since.
        """
        done = self._connection.execute("DELETE FROM own WHERE license_id = ? AND times = ?", (id, times)).rowcount
        if done:
            self.remove(tables.licenses, id)
        return bool(done)

    def remove(self, table: Table, id: str) -> None:
        self._connection.execute(f"DELETE FROM {table.name} WHERE {_key(table)} = ?", (id,))  # noqa: S608 - our own names
        if table is tables.licenses:
            self._connection.execute("DELETE FROM machines WHERE license_id = ?", (id,))

    def clear(self) -> None:
        """Forgets everything: the ledger is not the one that was copied."""
        for table in FOLLOWED:
            self._connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - our own names
        self._connection.execute("DELETE FROM position")
        self._connection.execute("DELETE FROM own")

    def stay(self, position: Position) -> None:
        """The copy stands where it stood, as of later; nothing happens where it has been moved meanwhile."""
        self._connection.execute(
            "UPDATE position SET as_of = ?, polled_at = ?, wall_skew = ? WHERE complete AND ledger_id = ? "
            "AND generation = ? AND seq = ? AND event_id IS ? AND as_of < ?",
            (
                *(position.as_of, position.polled_at, position.wall_skew, position.ledger_id),
                *(position.generation, position.seq, position.event_id, position.as_of),
            ),
        )

    def move_to(self, position: Position) -> None:
        self._connection.execute(
            f"INSERT OR REPLACE INTO position (id, {', '.join(Position.__struct_fields__)}) "  # noqa: S608 - our own
            "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(position),
        )


def _key(table: Table) -> str:
    return str(table.primary_key.columns.values()[0].name)


def _column(column: Column[Any]) -> str:
    """As in the ledger, without its constraints: those are the ledger's to keep."""
    kind = column.type.compile(dialect=sqlite.dialect())
    return f"{column.name} {kind}{' PRIMARY KEY' if column.primary_key else ''}"
