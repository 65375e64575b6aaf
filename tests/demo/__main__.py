"""`make demo`: shows a cluster that loses its primary, its database and a frozen node, and counts what that cost.

Ends with 1 where a check went unanswered, was denied wrongly, was lost or was counted twice.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.cluster.clients import Crowd
from tests.chaos.cluster.history import Fault, History, now
from tests.chaos.cluster.judge import Findings, judged
from tests.chaos.cluster.kinds import FAULTS
from tests.chaos.cluster.ledger import remains
from tests.chaos.cluster.run import customers
from tests.chaos.cluster.scene import Scene
from tests.chaos.cluster.site import Site
from tests.demo.database import database
from tests.demo.picture import Lines, Picture, Screen
from tests.demo.watch import Watch
from tests.support.programs import PostgresUnavailable

_RATE = 20.0
_STORY = (
    ("kill_primary", "The primary is killed. Another node takes over; then the primary comes back and leads again."),
    ("stop_postgres", "The database stops. Every node goes on answering, and keeps what happened in its queue."),
    ("freeze_primary", "The primary freezes. Another node takes over, and the frozen one wakes up to find that out."),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="no longer than each fault takes")
    parser.add_argument("--plain", action="store_true", help="lines instead of a picture, as without a terminal")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        # The database runs as a user of its own, and root's temporary folders are closed to it.
        Path(folder).chmod(0o711)
        try:
            found = play(Path(folder), fast=given.fast, plain=given.plain or not sys.stdout.isatty())
        except PostgresUnavailable as error:
            print(error, file=sys.stderr)
            return 2
    return tell(found)


def play(folder: Path, *, fast: bool, plain: bool) -> Findings:
    """The whole story, shown as it goes."""
    history, rng, troubles = History(), random.Random(secrets.randbits(32)), list[str]()
    calm_s = 2.0 if fast else 6.0
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(database(folder, FAILBACK_DELAY="3", LOG_LEVEL="ERROR"))
        crowd = Crowd(
            cluster, history, stack.enter_context(contextlib.closing(customers(cluster))), _RATE, rng.random()
        )
        watch = stack.enter_context(Watch(cluster, history))
        screen: Screen = stack.enter_context(Lines(watch) if plain else Picture(watch))
        screen.says("Three nodes start on one Postgres.")
        cluster.start()
        crowd.start()
        screen.says(f"Clients ask {_RATE:g} times a second, the first node of their list first.")
        time.sleep(calm_s)
        for kind, caption in _STORY:
            screen.says(caption)
            try:
                tell_fault(cluster, history, kind, rng, fast=fast)
            except AssertionError as error:
                troubles.append(f"{kind}: {error}")
                break
            screen.says("All is well again.")
            time.sleep(calm_s)
        troubles += crowd.stop()
        left = remains(cluster)
    return judged(history, left, {}, troubles)


def tell_fault(cluster: Site, history: History, kind: str, rng: random.Random, *, fast: bool) -> None:
    """Makes the fault, puts it right, and waits until the cluster has come round. AssertionError: it does not."""
    fault = Fault(kind=kind, began=now())
    history.faults.append(fault)
    _, epoch = cluster.lease()
    try:
        Scene(cluster, fault, FAULTS[kind].draw(rng), rng, epoch, short=fast).make()
        cluster.steady()
    finally:
        fault.ended = now()


def tell(found: Findings) -> int:
    """The tally; gives the exit status."""
    figures = found.figures
    takeovers = [each["max"] for each in figures["takeover_s"].values() if each is not None]
    rows = (
        ("checks answered", figures["checks"] - figures["unanswered"]),
        ("not answered", figures["unanswered"]),
        ("denied wrongly", figures["false_denials"]),
        ("lost", figures["lost"]),
        ("doubled", figures["doubled"]),
        ("answered without the database", figures["queued_answers"]),
        ("longest takeover", f"{max(takeovers, default=0.0):.1f} s"),
        ("longest gap of a client", f"{figures['longest_gap_s']:.1f} s"),
    )
    for name, value in rows:
        print(f"{name:>32}  {value}")
    for line in found.broken:
        print(line)
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
