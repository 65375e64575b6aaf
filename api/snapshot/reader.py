"""A worker's view of its node's snapshot: used while it is fresh, and younger than what the node itself wrote."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from api import logs
from api.ledger.records import Ask, Known
from api.shared_state import SharedState
from api.snapshot.copy import Position, Snapshot

_log = logs.get("snapshot")

#: How old the snapshot may be while the ledger is in reach. Beyond it, the ledger itself is read.
MAX_AGE_S = 1.0
_LOOK_EVERY_S = 0.05
_OPEN_EVERY_S = 2.0


class Seen(msgspec.Struct, frozen=True):
    """What was known of a license at `as_of` (ledger time)."""

    known: Known
    as_of: float


class Reader:
    """Reads the snapshot at `path`, which the node's supervisor writes. `max_age_s` 0: never, always the ledger."""

    def __init__(
        self, path: Path, state: SharedState, monotonic: Callable[[], float], *, max_age_s: float = MAX_AGE_S
    ) -> None:
        self.max_age_s = max_age_s
        self._path = path
        self._state = state
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._opened_at = float("-inf")
        self._position: Position | None = None
        self._looked_at = float("-inf")

    def look_up(self, ask: Ask) -> Seen | None:
        """What the snapshot knows, or None where it is too old, or older than this node's own last write."""
        position = self._fresh()
        if position is None or self._snapshot is None or self._state.changed_at(ask.key_hash) >= position.polled_at:
            return None
        try:
            return Seen(self._snapshot.look_up(ask), position.as_of)
        except sqlite3.Error as error:
            self._drop(error)
            return None

    def has_key(self, key_hash: str) -> bool:
        """Whether the snapshot, however old, has a license of this key."""
        self._fresh()
        try:
            return self._snapshot is not None and self._snapshot.has_key(key_hash)
        except sqlite3.Error as error:
            self._drop(error)
            return False

    def close(self) -> None:
        with self._lock:
            if self._snapshot is not None:
                self._snapshot.close()
            self._snapshot, self._opened_at = None, float("inf")

    def _fresh(self) -> Position | None:
        """Where the snapshot stands, if that is no longer ago than `max_age_s`; looked at every so often."""
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
        if position is None or not position.complete:
            return None
        # A moment that is still to come was written before this machine was started again.
        return position if 0.0 <= now - position.polled_at < self.max_age_s else None

    def _look(self, now: float) -> None:
        stale = self._position is None or now - self._position.polled_at > self.max_age_s
        if stale and now - self._opened_at > _OPEN_EVERY_S and self._path.exists():
            # It may have been made anew under the same name.
            former, self._opened_at = self._snapshot, now
            self._snapshot = Snapshot(self._path, reading=True)
            if former is not None:
                former.close()
        self._position = None if self._snapshot is None else self._snapshot.position()

    def _drop(self, error: Exception) -> None:
        _log.warning("the snapshot cannot be read", extra={"reason": str(error)})
        self._position = None
