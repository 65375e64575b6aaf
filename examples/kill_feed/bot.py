"""The backup: a loop that runs 24/7 and stands in for the monitor. Usage: bot.py <folder> [timeout_s]"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __package__ is None:  # started as a script: the repository's root is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.kill_feed.feed import Feed
from failover import AutoFailover


def say(line: str) -> None:
    """A line on the console, at once."""
    print(line, flush=True)


def killfeed_loop(failover: AutoFailover, feed: Feed, seen: int) -> int:
    """One round: nothing while the monitor is well, its work while it is not. Gives the log's line it has come to."""
    if not failover.should_activate_backup():
        return feed.position()
    failover.send_backup_heartbeat()
    for event in feed.new_events(after=max(seen, feed.position())):
        failover.queue_event_if_backup(event)
        seen = int(event["line"])
    return max(seen, feed.position())


def main(folder: Path, timeout_s: float) -> None:
    """Runs the loop for ever. A real bot would do so every 5 minutes, with a time-out of 2."""
    feed = Feed(folder)
    failover = AutoFailover(
        lambda event: feed.take(event, by="bot"),
        url=f"sqlite:///{folder / 'failover.db'}",
        queue_path=folder / "sync_queue.db",
        node="bot",
        timeout_seconds=timeout_s,
        check_every=timeout_s,
        say=say,
    )
    seen = 0
    while True:
        seen = killfeed_loop(failover, feed, seen)
        time.sleep(timeout_s / 5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 120.0)
