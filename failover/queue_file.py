"""The queue's file: its schema, how it is opened, how a damaged one is set aside and what is saved from it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger("protecao.failover.queue")


def _share(sign: str, row: str) -> str:
    """In a trigger: counts its `row` to its key's share."""
    return f"""INSERT OR IGNORE INTO shares SELECT {row}.key, 0, 0 WHERE {row}.state != 'synced';
    UPDATE shares SET pending = pending {sign} ({row}.state = 'pending'), dead = dead {sign} ({row}.state = 'dead')
    WHERE key = {row}.key AND {row}.state != 'synced';"""  # noqa: S608 - our own words


def _share_bytes(sign: str, row: str) -> str:
    """In a trigger: counts the bytes of its `row` to its key's share."""
    return f"""INSERT OR IGNORE INTO share_bytes SELECT {row}.key, 0 WHERE {row}.state != 'synced';
    UPDATE share_bytes SET bytes = bytes {sign} length(CAST({row}.body AS BLOB))
    WHERE key = {row}.key AND {row}.state != 'synced';"""  # noqa: S608 - our own words


_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS about (id INTEGER PRIMARY KEY CHECK (id = 1), origin TEXT NOT NULL,
    pending INTEGER NOT NULL, bytes INTEGER NOT NULL, synced INTEGER NOT NULL, dead INTEGER NOT NULL,
    ledger TEXT NOT NULL DEFAULT '')""",
    """CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL,
    kind TEXT NOT NULL, key TEXT NOT NULL, occurred_at REAL NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL,
    queued_at REAL NOT NULL, state TEXT NOT NULL DEFAULT 'pending', tries INTEGER NOT NULL DEFAULT 0,
    reason TEXT, settled_at REAL, UNIQUE (event_id, checksum))""",
    # A row for each key, and not an index of the events by key: of keys that come again it is a tenth of the size, and
    # the events of a batch, which are of many keys, are in fewer pages of it to write.
    """CREATE TABLE IF NOT EXISTS shares (key TEXT PRIMARY KEY, pending INTEGER NOT NULL, dead INTEGER NOT NULL)
    WITHOUT ROWID""",
    # A table of its own: a release that knows nothing of it fills `shares` as it is, without naming the columns.
    "CREATE TABLE IF NOT EXISTS share_bytes (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    "DROP INDEX IF EXISTS events_by_key",
    "CREATE INDEX IF NOT EXISTS events_open ON events (position) WHERE state = 'pending'",
    "CREATE INDEX IF NOT EXISTS events_dead ON events (occurred_at) WHERE state = 'dead'",
    "CREATE INDEX IF NOT EXISTS events_settled ON events (settled_at) WHERE state = 'synced'",
    # Triggers, since a release that knows nothing of shares may write the file too.
    f"CREATE TRIGGER IF NOT EXISTS share_taken AFTER INSERT ON events BEGIN {_share('+', 'new')} END",
    f"CREATE TRIGGER IF NOT EXISTS share_left AFTER DELETE ON events BEGIN {_share('-', 'old')} END",
    f"""CREATE TRIGGER IF NOT EXISTS share_moved AFTER UPDATE OF key, state ON events
    BEGIN {_share("-", "old")} {_share("+", "new")} END""",
    f"CREATE TRIGGER IF NOT EXISTS bytes_taken AFTER INSERT ON events BEGIN {_share_bytes('+', 'new')} END",
    f"CREATE TRIGGER IF NOT EXISTS bytes_left AFTER DELETE ON events BEGIN {_share_bytes('-', 'old')} END",
    f"""CREATE TRIGGER IF NOT EXISTS bytes_moved AFTER UPDATE OF key, state ON events
    BEGIN {_share_bytes("-", "old")} {_share_bytes("+", "new")} END""",
)
#: `user_version` of a file that has all of it.
_VERSION = 2
COLUMNS = "event_id, kind, key, occurred_at, body, checksum, queued_at, state, tries, reason, settled_at"
_SAVE = f"INSERT OR IGNORE INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own names
#: Around a hole, rows are looked up one by one as far as this.
_STRIDE = 2000
_MAGIC = b"SQLite format 3\0"
#: A header that was damaged may speak of any length.
_LONGEST = 2**30

Row = tuple[str, str, str, float, str, str, float, str, int, str | None, float | None]


def checksum(event_id: str, kind: str, key: str, occurred_at: float, body: str) -> str:
    """A digest over all that the caller gave, kept beside it."""
    parts = (event_id, kind, key, repr(float(occurred_at)), body)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def open_file(path: Path) -> sqlite3.Connection:
    """The sound file at `path`, made if there is none; a damaged one is set aside and its sound rows saved first.

    The caller holds the file's lock. Raises sqlite3.Error where the disk does not let it be opened.
    """
    repaired = _repaired(path)
    if repaired.exists() and not path.exists():
        repaired.replace(path)  # it was complete, and the last start ended between the two renames
    elif path.exists() and not is_sound(path):
        _rescue(path, repaired)
    connection = connect(path)
    prepare(connection)
    path.chmod(0o600)
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """A connection on which a commit is on the disk when it returns."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new file, which is an origin of its own, and what one of an earlier release lacks."""
    if connection.execute("PRAGMA user_version").fetchone()[0] >= _VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _SCHEMA:
            connection.execute(statement)
        if connection.execute("SELECT 1 FROM pragma_table_info('about') WHERE name = 'ledger'").fetchone() is None:
            connection.execute("ALTER TABLE about ADD COLUMN ledger TEXT NOT NULL DEFAULT ''")
        connection.execute("INSERT OR IGNORE INTO about VALUES (1, ?, 0, 0, 0, 0, '')", (str(uuid.uuid4()),))
        recount(connection)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def is_sound(path: Path) -> bool:
    """Whether SQLite finds the file whole, and its indexes, which say what is pending.

    Raises OperationalError where it cannot be read at all.
    """
    try:
        with contextlib.closing(connect(path)) as connection:
            answer = connection.execute("PRAGMA integrity_check(1)").fetchone()
            return bool(answer and answer[0] == "ok")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def _rescue(path: Path, repaired: Path) -> None:
    _remove(repaired)
    _fill_up(path)
    with contextlib.closing(connect(repaired)) as target:
        prepare(target)
        saved = _save_rows(path, target)
        target.execute("UPDATE about SET ledger = ?", (_ledger_of(path),))
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    aside = put_aside(path, "damaged")
    _log.error(
        "the queue's file was damaged: it is set aside, and the rows whose checksum holds are saved",
        extra={"set_aside": str(aside), "saved": saved},
    )
    repaired.replace(path)


def put_aside(path: Path, why: str) -> Path:
    """Gives the file, closed by the caller, a name of its own beside its place; gives that."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
    aside = path.with_name(f"{path.name}.{why}-{moment}-{ns:09d}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _ledger_of(path: Path) -> str:
    """Whose events a damaged file holds; empty where it does not say so any more."""
    try:
        with contextlib.closing(connect(path)) as source:
            return str(source.execute("SELECT ledger FROM about").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return ""


def _fill_up(path: Path) -> None:
    """Gives a truncated file the length its header speaks of: SQLite reads nothing of a file that is too short."""
    with path.open("rb") as file:
        header = file.read(32)
    if header.startswith(_MAGIC) and len(header) == 32:
        page = int.from_bytes(header[16:18])
        length = int.from_bytes(header[28:32]) * (65536 if page == 1 else page)
        if path.stat().st_size < length <= _LONGEST:
            os.truncate(path, length)


def _save_rows(path: Path, target: sqlite3.Connection) -> int:
    saved = 0
    target.execute("BEGIN IMMEDIATE")
    for row in _sound_rows(path):
        saved += target.execute(_SAVE, row).rowcount
    recount(target)
    target.execute("COMMIT")
    return saved


def recount(connection: sqlite3.Connection) -> None:
    """Sets the counters and the shares by what is in the table, whatever its indexes say."""
    connection.execute(
        "UPDATE about SET (pending, dead, synced, bytes) = (SELECT coalesce(sum(state = 'pending'), 0), "
        "coalesce(sum(state = 'dead'), 0), max(about.synced, coalesce(sum(state = 'synced'), 0)), "
        "coalesce(sum((state != 'synced') * length(CAST(body AS BLOB))), 0) FROM events NOT INDEXED)"
    )
    connection.execute("DELETE FROM shares")
    connection.execute(
        "INSERT INTO shares SELECT key, sum(state = 'pending'), sum(state = 'dead') FROM events NOT INDEXED "
        "WHERE state != 'synced' GROUP BY key"
    )
    connection.execute("DELETE FROM share_bytes")
    connection.execute(
        "INSERT INTO share_bytes SELECT key, sum(length(CAST(body AS BLOB))) FROM events NOT INDEXED "
        "WHERE state != 'synced' GROUP BY key"
    )


def _sound_rows(path: Path) -> Iterator[Row]:
    """Every row that can still be read and whose checksum holds, in order, stepping over what is lost."""
    try:
        source = connect(path)
    except sqlite3.Error:
        return
    with contextlib.closing(source):
        position, misses = 0, 0
        while misses < _STRIDE:
            try:
                found = source.execute(
                    f"SELECT position, {COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT 1",  # noqa: S608 - our own names
                    (position,),
                ).fetchone()
            except sqlite3.Error:
                position, misses = position + 1, misses + 1
                continue
            if found is None:
                return
            if found[0] <= position:  # a damaged tree leads back
                position, misses = position + 1, misses + 1
                continue
            position, misses = found[0], 0
            if _holds(found[1:]):
                yield found[1:]


def _holds(row: Row) -> bool:
    try:
        return checksum(*row[:5]) == row[5]
    except (TypeError, ValueError, AttributeError):
        return False


def _repaired(path: Path) -> Path:
    return path.with_name(path.name + ".repaired")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
