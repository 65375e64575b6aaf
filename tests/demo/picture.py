"""What the watcher sees, shown: a live picture in a terminal, plain lines everywhere else."""

from __future__ import annotations

import threading
import time
from typing import Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tests.demo.watch import SnapshotRecord, Watch

_COLOURS = {"primary": "green", "backup": "yellow", "standby": "cyan", "isolated": "magenta"}
_LINE_EVERY_S = 1.0
_LAST = 8


class Screen(Protocol):
    """Where the story is told. A context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def says(self, caption: str) -> None:
        """What happens now."""


class Picture:
    """A table of the nodes, the clients' tally below it, and the last captions, drawn anew several times a second."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._began = watch, time.monotonic()
        self._captions: list[str] = []
        self._live = Live(get_renderable=self._drawn, refresh_per_second=5)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def says(self, caption: str) -> None:
        self._captions.append(f"{time.monotonic() - self._began:6.1f} s  {caption}")

    def _drawn(self) -> Group:
        table = Table("node", "role", "state", "epoch", "queue", "database", title="one license server, three nodes")
        for seen in self._watch.nodes.values():
            shown = (seen.state, str(seen.epoch or ""), str(seen.queue or ""), seen.ledger)
            table.add_row(seen.id, Text(seen.role, style=_COLOURS.get(seen.role, "bold red")), *shown)
        tally = self._watch.tally()
        style = "bold red" if tally.failed else "bold green"
        line = Text(f"{tally.answered} checks answered, {tally.failed} not; {tally.rate:.0f} a second", style=style)
        return Group(table, line, Text("\n".join(self._captions[-_LAST:])))


class Lines:
    """A line when something changes, and one a second at most of how many checks were answered."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._began = watch, time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def says(self, caption: str) -> None:
        self._print(f"== {caption}")

    def _loop(self) -> None:
        shown = ""
        while not self._end.wait(_LINE_EVERY_S):
            nodes = "   ".join(map(_in_words, self._watch.nodes.values()))
            tally = self._watch.tally()
            if nodes != shown:
                self._print(f"{nodes}   {tally.answered} answered, {tally.failed} not")
                shown = nodes

    def _print(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", flush=True)


def _in_words(seen: SnapshotRecord) -> str:
    queue = f", {seen.queue} queued" if seen.queue else ""
    epoch = f" (epoch {seen.epoch}{queue})" if seen.epoch else ""
    return f"{seen.id}: {seen.role}{epoch}"
