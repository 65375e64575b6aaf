"""A worker's view of its node's snapshot: fresh for a check, and as old as it may be where the node is isolated."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy import Table

from api import logs
from api.ledger.records import Change, LicenseQuery, LicenseRecord
from api.node.change_marks import ChangeMarks
from api.snapshot.copy import Position, Snapshot

_log = logs.get("snapshot")
Read = TypeVar("Read")

#: How old the snapshot may be while the ledger is in reach. Beyond it, the ledger itself is read.
MAX_AGE_S = 1.0
_LOOK_EVERY_S = 0.05
_OPEN_EVERY_S = 2.0


class SnapshotRecord(msgspec.Struct, frozen=True):
    """What was known of a license at `as_of` (ledger time)."""

    known: LicenseRecord
    as_of: float


class Reader:
    """Reads the snapshot at `path`, which the node's supervisor writes. `max_age_s` 0: never, always the ledger.

    `source`: which ledger it must be of; `longest_s`: how old it may be where the ledger cannot be asked.
    """

    def __init__(
        self,
        path: Path,
        changes: ChangeMarks,
        monotonic: Callable[[], float],
        *,
        max_age_s: float = MAX_AGE_S,
        source: str = "",
        longest_s: float = float("inf"),
    ) -> None:
        self.max_age_s = max_age_s
        self._path = path
        self._changes = changes
        self._monotonic = monotonic
        self._source, self._longest_s = source, longest_s
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._inode = 0
        self._writable: tuple[Snapshot, int] | None = None
        self._opened_at = float("-inf")
        self._position: Position | None = None
        self._looked_at = float("-inf")

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[SnapshotRecord | None]:
        """What the snapshot knows of each; None where it is too old, or older than this node's own last write."""
        position, now = self._known_position(), self._monotonic()
        # A moment that is still to come was written before this machine was started again.
        if position is None or not 0.0 <= now - position.polled_at < self.max_age_s:
            return [None] * len(queries)
        known = self._read(lambda snapshot: snapshot.look_up(queries))
        if known is None:
            return [None] * len(queries)
        return [
            SnapshotRecord(one, position.as_of)
            if self._changes.changed_at(query.key_hash) < position.polled_at
            else None
            for query, one in zip(queries, known, strict=True)
        ]

    def look_up_isolated(
        self, queries: Sequence[LicenseQuery], now: float, *, fully: bool = True
    ) -> list[SnapshotRecord] | None:
        """What is known of each at `now` (ledger time) without the ledger; None where there is no copy young enough.

        `fully`: with all that a write needs to know.
        """
        position = self.usable(now)
        if position is None:
            return None
        known = self._read(lambda copy: copy.look_up_fully(queries, now) if fully else copy.look_up(queries))
        return None if known is None else [SnapshotRecord(one, position.as_of) for one in known]

    def position(self) -> Position | None:
        """Where a whole copy stands, of whichever ledger and however old."""
        return self._known_position()

    def usable(self, now: float) -> Position | None:
        """Where the copy stands, if it is of this ledger and young enough to answer from alone."""
        position = self._known_position()
        if position is None or position.source != self._source:
            return None
        return position if now - position.as_of <= self._longest_s else None

    def unusable_reason(self, now: float) -> str:
        """Why nothing is answered from the copy alone at `now` (ledger time); empty where it is."""
        position = self._known_position()
        if position is None:
            return "there is no copy of it here"
        if position.source != self._source:
            return "the copy here is of another ledger"
        age = now - position.as_of
        return f"the copy here is {age:.0f} s old, and too old" if age > self._longest_s else ""

    def put_own(self, changes: Sequence[tuple[Change, int]], *, queued: bool = False) -> None:
        """What this node just made of licenses, with the `seq` it knew each of. A copy that cannot be written waits.

        `queued`: it did so without the ledger.
        """
        if not changes:
            return
        try:
            with self._lock, self._writing().writing() as writer:
                for change, seq in changes:
                    writer.put_own(change, seq, queued=queued)
        except (sqlite3.Error, OSError) as error:
            _log.warning("the snapshot cannot be written", extra={"reason": str(error)})

    def reading(self) -> Snapshot | None:
        """The copy itself, whatever its age, if there is one."""
        self._known_position()
        return self._snapshot

    def has_key(self, key_hash: str) -> bool | None:
        """Whether the snapshot, however old, has a license of this key; None where it is incomplete and cannot tell."""
        position = self._known_position()
        try:
            has = self._snapshot is not None and self._snapshot.has_key(key_hash)
        except sqlite3.Error as error:
            self._drop(error)
            return None
        return has if has or position is not None else None

    def held(self, queries: Sequence[LicenseQuery]) -> list[LicenseRecord] | None:
        """What the copy, however old, holds of each; None where there is no whole copy of this ledger."""
        if not self._is_of_this_ledger():
            return None
        return self._read(lambda copy: copy.look_up(queries))

    def is_own(self, license_id: str) -> bool:
        """Whether the copy's rows of this license hold what this node queued."""
        return bool(self._read(lambda copy: copy.is_own(license_id)))

    def ids_of(self, key_hash: str) -> tuple[str | None, set[str]]:
        """The id of the license of this key in the copy, and those of its active machines."""
        return self._read(lambda copy: copy.ids_of(key_hash)) or (None, set())

    def has_row(self, table: Table, id: str) -> bool:
        """Whether the copy of this ledger, however old, has the row."""
        return self._is_of_this_ledger() and bool(self._read(lambda copy: copy.has_row(table, id)))

    def license_of_machine(self, id: str) -> str | None:
        """The id of the license that the machine was one of when the copy was made, however old."""
        return self._read(lambda copy: copy.license_of_machine(id))

    def close(self) -> None:
        with self._lock:
            for snapshot in filter(None, (self._snapshot, self._writable and self._writable[0])):
                snapshot.close()
            self._snapshot, self._writable, self._opened_at = None, None, float("inf")

    def _is_of_this_ledger(self) -> bool:
        position = self._known_position()
        return position is not None and position.source == self._source

    def _read(self, look: Callable[[Snapshot], Read]) -> Read | None:
        if self._snapshot is None:
            return None
        try:
            return look(self._snapshot)
        except sqlite3.Error as error:
            self._drop(error)
            return None

    def _known_position(self) -> Position | None:
        """Where a complete copy stands, looked at every so often."""
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S and self._lock.acquire(blocking=False):
            try:
                self._looked_at = now
                self._look(now)
            except (sqlite3.Error, OSError) as error:
                self._drop(error)
            finally:
                self._lock.release()
        position = self._position
        return position if position is not None and position.complete else None

    def _look(self, now: float) -> None:
        stale = self._position is None or now - self._position.polled_at > self.max_age_s
        if stale and now - self._opened_at > _OPEN_EVERY_S and self._path.exists():
            self._opened_at = now
            inode = self._path.stat().st_ino
            # Made anew under the same name. The former is not closed here: others may be reading it.
            if self._snapshot is None or inode != self._inode:
                self._snapshot, self._inode = Snapshot(self._path, reading=True), inode
        self._position = None if self._snapshot is None else self._snapshot.position()

    def _writing(self) -> Snapshot:
        """The copy to be written, opened again where it was made anew under the same name."""
        inode = self._path.stat().st_ino
        if self._writable is None or self._writable[1] != inode:
            if self._writable is not None:
                self._writable[0].close()
            self._writable = (Snapshot(self._path), inode)
        return self._writable[0]

    def _drop(self, error: Exception) -> None:
        _log.warning("the snapshot cannot be read", extra={"reason": str(error)})
        self._position = None
