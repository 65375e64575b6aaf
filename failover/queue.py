"""The queue of events that could not go to the ledger: a file of this node, fsynced before anything is answered."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from filelock import Timeout as LockTimeout

from failover.errors import QueueBusy, QueueFull, QueueUnavailable, ShareFull
from failover.file_lock import OpenFileLock
from failover.queue_file import checksum, open_file, put_aside, recount

_log = logging.getLogger("protecao.failover.queue")
_LOCK_TIMEOUT_S = 5.0
#: A batch is in the queue within a millisecond or two: to look only every millisecond would cost a share of that.
_LOCK_POLL_S = 0.0002
_DAY_S = 86_400.0
#: Why a row was set aside that is not what was queued.
_UNSOUND = "checksum"

_INSERT = "INSERT OR IGNORE INTO events (event_id, kind, key, occurred_at, body, checksum, queued_at) VALUES "
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
#: Rows of one statement: older SQLite takes no more than 999 values.
_AT_ONCE = 100
_COUNT_NEW = (
    "UPDATE about SET pending = pending + ?, bytes = bytes + "
    "(SELECT coalesce(sum(length(CAST(body AS BLOB))), 0) FROM events WHERE position > ?)"
)
_FULLEST = """
SELECT max(pending + dead) FROM shares WHERE key != '' AND key IN (SELECT key FROM events WHERE position > ?)
"""
_FULLEST_BYTES = """
SELECT max(bytes) FROM share_bytes WHERE key != '' AND key IN (SELECT key FROM events WHERE position > ?)
"""
_DEAD = """
SELECT position, tries, queued_at, reason, event_id, kind, body, occurred_at, key FROM events WHERE state = 'dead'
ORDER BY position
"""
_REVIVE = """
UPDATE events SET state = 'pending', tries = 0, reason = NULL, settled_at = NULL
WHERE state = 'dead' AND position IN (SELECT value FROM json_each(?))
"""
_PLACE = "SELECT position FROM events WHERE event_id = ? AND checksum = ?"
_CHOSEN = "state = 'pending' AND position IN (SELECT value FROM json_each(?))"
_ACKNOWLEDGED = f"SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM events WHERE {_CHOSEN}"  # noqa: S608 - our own names
_ACKNOWLEDGE = f"UPDATE events SET state = 'synced', settled_at = ? WHERE {_CHOSEN}"  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `body` is text (JSON); `key` is whose share of the queue it fills, and order's scope."""

    event_id: str
    kind: str
    body: str
    occurred_at: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Queued:
    """An event in the queue: its place there, how often it was refused, when it was queued (Unix seconds).

    `reason`: why it was set aside, of one that was.
    """

    position: int
    event: Event
    tries: int
    queued_at: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class QueueStats:
    """`pending` rows, `bytes` that count (the dead's too), the oldest's age; `synced` since the file began.

    `dead`: rows that were set aside, the oldest of them from `oldest_dead_at` (Unix seconds).
    """

    pending: int
    bytes: int
    oldest_s: float | None
    synced: int
    dead: int
    oldest_dead_at: float | None = None

    @property
    def total(self) -> int:
        """Every event that was ever taken."""
        return self.pending + self.synced + self.dead


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What the queue holds at most; one key at most `share` of either. Acknowledged rows stay `keep_s` seconds."""

    events: int = 100_000
    bytes: int = 256 * 1024 * 1024
    share: float = 0.05
    keep_s: float = _DAY_S


def _always_noted(_queued: Queued, _reason: str) -> bool:
    """For a queue whose dead events are looked at in its file."""
    return True


class EventQueue:
    """`sync_queue.db`. Threads and processes of one node may share it; each call is one transaction under a file lock.

    All methods raise `QueueBusy` where another process writes for too long, `QueueUnavailable` where the disk fails.
    """

    def __init__(self, path: Path, limits: QueueLimits | None = None, now: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self.limits = limits or QueueLimits()
        self._now = now
        self._thread_lock = threading.RLock()
        self._lock = OpenFileLock(
            self.path.with_name(f"{self.path.name}.lock"), timeout_s=_LOCK_TIMEOUT_S, poll_s=_LOCK_POLL_S
        )
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self.origin = ""
        try:
            with self._writing() as connection:
                recount(connection)
        except BaseException:
            self.close()
            raise

    def append(self, events: Sequence[Event], *, ledger: str = "") -> list[int]:
        """Takes all of `events` with one fsync, or none; gives their places. The same event again is the same row.

        `ledger`: the name of the one that they are for, where there may be several; those of two never share a file.
        Raises `QueueFull` at the queue's limit, `ShareFull` at that of one key.
        """
        summed = [(*_fields(event), _sum(event)) for event in events]
        with self._writing() as connection:
            if ledger and not self._is_of(connection, ledger):
                raise QueueUnavailable("events of another ledger wait in it")
            self._check_room(connection, events)
            before, now = _last(connection), self._now()
            rows = [(*values, now) for values in summed]
            new = sum(_insert(connection, rows[at : at + _AT_ONCE]) for at in range(0, len(rows), _AT_ONCE))
            connection.execute(_COUNT_NEW, (new, before))
            self._check_shares(connection, before)
            if new == len(rows):
                last = _last(connection)
                return list(range(last - new + 1, last + 1))
            return [connection.execute(_PLACE, (id, digest)).fetchone()[0] for id, *_, digest in summed]

    def belong_to(self, ledger: str) -> Path | None:
        """Whose events these have to be. Those of another ledger are kept in a file aside, which is given."""
        with self._opened():  # its locks are held over all of this
            with self._writing() as connection:
                if self._is_of(connection, ledger):
                    return None
            self._disconnect()
            aside = put_aside(self.path, "of-another-ledger")
            with self._writing() as connection:
                self._is_of(connection, ledger)
        _log.error("the queue's events are another ledger's: they are set aside", extra={"set_aside": str(aside)})
        return aside

    def kept_aside(self) -> list[Path]:
        """The files with events of other ledgers. Raises nothing."""
        found = self.path.parent.glob(f"{self.path.name}.of-another-ledger-*")
        return sorted(path for path in found if not path.name.endswith(("-wal", "-shm")))

    def pending(
        self, limit: int, after: int = 0, is_noted: Callable[[Queued, str], bool] = _always_noted
    ) -> list[Queued]:
        """Up to `limit` events behind place `after` that are not acknowledged, in order.

        A row whose checksum does not hold any more is left out, and set aside where `is_noted` gives True for it.
        """
        with self._opened() as connection:
            found = connection.execute(
                "SELECT position, tries, queued_at, checksum, event_id, kind, body, occurred_at, key FROM events "
                "WHERE state = 'pending' AND position > ? ORDER BY position LIMIT ?",
                (after, limit),
            ).fetchall()
        rows = [(Queued(row[0], Event(*row[4:]), row[1], row[2]), row[3]) for row in found]
        sound = [queued for queued, kept in rows if _sum(queued.event) == kept]
        if len(sound) < len(rows):
            for queued in [queued for queued, kept in rows if _sum(queued.event) != kept]:
                if is_noted(queued, _UNSOUND):
                    self.set_aside(queued.position, _UNSOUND)
            with self._writing() as connection:
                recount(connection)  # it was counted to another key, perhaps, than it has now
        return sound

    def find(self, event_ids: Sequence[str]) -> dict[str, Event]:
        """Those of these events that the file has, acknowledged ones included, by their id."""
        marks = ", ".join("?" * len(event_ids))
        query = f"SELECT event_id, kind, body, occurred_at, key FROM events WHERE event_id IN ({marks})"  # noqa: S608 - our own names
        with self._opened() as connection:
            return {row[0]: Event(*row) for row in connection.execute(query, tuple(event_ids))}

    def holds(self, key: str) -> bool:
        """Whether events of `key` wait in here."""
        query = "SELECT 1 FROM shares WHERE key = ? AND pending > 0"
        with self._opened() as connection:
            return connection.execute(query, (key,)).fetchone() is not None

    def acknowledge(self, positions: Sequence[int]) -> None:
        """These are in the ledger. Done twice, it counts once."""
        chosen = json.dumps(list(positions))
        with self._writing() as connection:
            count, size = connection.execute(_ACKNOWLEDGED, (chosen,)).fetchone()
            connection.execute(_ACKNOWLEDGE, (self._now(), chosen))
            connection.execute(
                "UPDATE about SET pending = pending - ?, synced = synced + ?, bytes = bytes - ?", (count, count, size)
            )

    def count_try(self, position: int, reason: str) -> int:
        """This event was refused once more; gives how often by now."""
        with self._writing() as connection:
            connection.execute("UPDATE events SET tries = tries + 1, reason = ? WHERE position = ?", (reason, position))
            found = connection.execute("SELECT tries FROM events WHERE position = ?", (position,)).fetchone()
            return int(found[0]) if found else 0

    def set_aside(self, position: int, reason: str) -> None:
        """This event will never be taken: it stays in the file as `dead`, and counts towards the limits."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE events SET state = 'dead', reason = ?, settled_at = ? WHERE position = ? AND state = 'pending'",
                (reason, self._now(), position),
            ).rowcount
            connection.execute("UPDATE about SET pending = pending - ?, dead = dead + ?", (changed, changed))
        _log.error("an event was set aside", extra={"position": position, "reason": reason, "origin": self.origin})

    def dead(self) -> list[Queued]:
        """The events that were set aside, in order."""
        with self._opened() as connection:
            found = connection.execute(_DEAD).fetchall()
        return [Queued(row[0], Event(*row[4:]), row[1], row[2], row[3]) for row in found]

    def revive(self, positions: Sequence[int]) -> int:
        """Those of these that were set aside wait again in their old places, with no try counted; gives how many."""
        with self._writing() as connection:
            changed = connection.execute(_REVIVE, (json.dumps(list(positions)),)).rowcount
            connection.execute("UPDATE about SET pending = pending + ?, dead = dead - ?", (changed, changed))
        return int(changed)

    def trim(self) -> int:
        """Removes acknowledged rows that have been kept long enough, or that are more than the queue may hold."""
        with self._writing() as connection:
            old = connection.execute(
                "DELETE FROM events WHERE state = 'synced' AND settled_at < ?", (self._now() - self.limits.keep_s,)
            ).rowcount
            many = connection.execute(
                "DELETE FROM events WHERE position IN (SELECT position FROM events WHERE state = 'synced' "
                "ORDER BY settled_at DESC, position DESC LIMIT -1 OFFSET ?)",
                (self.limits.events,),
            ).rowcount
            connection.execute("DELETE FROM shares WHERE pending = 0 AND dead = 0")
            connection.execute("DELETE FROM share_bytes WHERE bytes <= 0")
            return int(old + many)

    def stats(self) -> QueueStats:
        """Counts, bytes and the oldest row's age in seconds."""
        with self._opened() as connection:
            pending, size, synced, dead = connection.execute(
                "SELECT pending, bytes, synced, dead FROM about"
            ).fetchone()
            oldest = connection.execute(
                "SELECT queued_at FROM events WHERE state = 'pending' ORDER BY position LIMIT 1"
            ).fetchone()
            dead_at = connection.execute(
                "SELECT min(occurred_at) FROM events WHERE state = 'dead'" if dead else "SELECT NULL"
            ).fetchone()
        return QueueStats(
            pending, size, max(0.0, self._now() - oldest[0]) if oldest else None, synced, dead, dead_at[0]
        )

    def filled(self, stats: QueueStats) -> float:
        """How full a queue with `stats` is, from 0 to 1."""
        return max((stats.pending + stats.dead) / self.limits.events, stats.bytes / self.limits.bytes)

    def close(self) -> None:
        """Closes the file; the next call opens it again."""
        with self._thread_lock:
            self._disconnect()
            self._lock.close()

    @staticmethod
    def _is_of(connection: sqlite3.Connection, ledger: str) -> bool:
        """Whether the file is this ledger's. One that says nothing, or in which nothing waits, becomes so."""
        held, pending = connection.execute("SELECT ledger, pending FROM about").fetchone()
        if held == ledger:
            return True
        if held:
            if pending:
                return False
            connection.execute("DELETE FROM events WHERE state = 'synced'")
        connection.execute("UPDATE about SET ledger = ?", (ledger,))
        return True

    def _check_room(self, connection: sqlite3.Connection, events: Sequence[Event]) -> None:
        pending, size, dead = connection.execute("SELECT pending, bytes, dead FROM about").fetchone()
        if pending + dead + len(events) > self.limits.events or size + sum(map(_size, events)) > self.limits.bytes:
            raise QueueFull(f"{pending + dead} events, {size} bytes")

    def _check_shares(self, connection: sqlite3.Connection, before: int) -> None:
        """Raises `ShareFull` where a key of the rows behind `before` has more than one key may have."""
        events, size = int(self.limits.events * self.limits.share), int(self.limits.bytes * self.limits.share)
        if (connection.execute(_FULLEST, (before,)).fetchone()[0] or 0) > events:
            raise ShareFull(f"one key may have {events} events")
        if (connection.execute(_FULLEST_BYTES, (before,)).fetchone()[0] or 0) > size:
            raise ShareFull(f"one key's events may have {size} bytes")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A disk that is full may have ended the transaction already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file as it is now, under the locks; another process may have set the old one aside."""
        try:
            with self._thread_lock, self._lock:
                yield self._current()
        except LockTimeout as error:
            raise QueueBusy("another process is writing") from error
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise QueueUnavailable(f"{type(error).__name__}: {error}") from error

    def _current(self) -> sqlite3.Connection:
        if self._connection is None or not self._is_the_same_file():
            self._disconnect()
            self._connection = open_file(self.path)
            self._inode = self.path.stat().st_ino
            self.origin = self._connection.execute("SELECT origin FROM about").fetchone()[0]
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_the_same_file(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> int:
    """Puts in those that are new, and gives their number.

    One statement: after each another thread may take the interpreter, and all would wait for the lock meanwhile.
    """
    return connection.execute(_INSERT + ", ".join([_ROW] * len(rows)), [*chain.from_iterable(rows)]).rowcount


def _last(connection: sqlite3.Connection) -> int:
    """The place of the last event; 0 where there is none."""
    return int(connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0])


def _fields(event: Event) -> tuple[str, str, str, float, str]:
    return event.event_id, event.kind, event.key, event.occurred_at, event.body


def _sum(event: Event) -> str:
    return checksum(*_fields(event))


def _size(event: Event) -> int:
    return len(event.body.encode())
