"""The primary: reads the game's log line by line, while it is in charge. Usage: monitor.py <folder> [timeout_s]"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __package__ is None:  # started as a script: the repository's root is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.kill_feed.feed import Feed
from failover import AutoFailover


def main(folder: Path, timeout_s: float) -> None:
    """Beats, and takes what is new in the log whenever no backup is in charge."""
    feed = Feed(folder)
    failover = AutoFailover(
        url=f"sqlite:///{folder / 'failover.db'}", node="monitor", rank=1, timeout_seconds=timeout_s
    )
    while True:
        if failover.send_primary_heartbeat():
            for event in feed.new_events():
                feed.take(event, by="monitor")
        time.sleep(timeout_s / 10)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 120.0)
