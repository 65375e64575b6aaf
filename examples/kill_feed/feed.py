"""The feed that players see, and the game's log it is made from: each line of the log is one event, taken once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS feed (number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,
    line INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, taken_by TEXT NOT NULL)
"""


class Feed:
    """`game.log` and `kill_feed.db` in one folder. A line of the log is `<kind> <text>`."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "game.log"
        self._path = folder / "kill_feed.db"
        with self._database() as database:
            database.execute(_SCHEMA)

    def position(self) -> int:
        """The last line of the log that the feed has; 0: none."""
        with self._database() as database:
            return int(database.execute("SELECT coalesce(max(line), 0) FROM feed").fetchone()[0])

    def new_events(self, after: int | None = None) -> Iterator[dict[str, Any]]:
        """The events behind line `after` (where the feed has come to) that have been written to their end."""
        start = self.position() if after is None else after
        lines = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        for number, line in enumerate(lines, 1):
            if number > start and line.endswith("\n"):
                kind, _, text = line.strip().partition(" ")
                yield {"event_id": f"line-{number}", "line": number, "kind": kind, "text": text}

    def take(self, event: Mapping[str, Any], by: str) -> None:
        """Adds `event`; the same one again changes nothing, so a replay may send it twice."""
        row = (event["event_id"], event["line"], event["kind"], event["text"], by)
        with self._database() as database:
            database.execute(
                "INSERT OR IGNORE INTO feed (event_id, line, kind, text, taken_by) VALUES (?, ?, ?, ?, ?)", row
            )

    def rows(self) -> list[tuple[int, str, str, str]]:
        """`(line, kind, text, taken_by)` in the order they were taken."""
        with self._database() as database:
            return database.execute("SELECT line, kind, text, taken_by FROM feed ORDER BY number").fetchall()

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as database, database:
            yield database
