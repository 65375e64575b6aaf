"""How long a run is, and what it is measured on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """`delay_ms`: what the network between node and Postgres adds to each direction; `many`: the copy's licenses.

    `backlog`: how many events the queue holds when the database comes back; `look_ups`: reads that are timed;
    `idle_nodes`, `idle_s`: how many nodes are left alone, and for how long.
    """

    licenses: int = 1000
    connections: tuple[int, ...] = (1, 16, 64)
    rounds: int = 5
    seconds: float = 4.0
    warm_up_s: float = 3.0
    starts: int = 5
    delay_ms: float = 12.5
    syncs: int = 500
    backlog: int = 60_000
    many: int = 100_000
    look_ups: int = 50_000
    idle_nodes: int = 3
    idle_s: float = 300.0

    @property
    def most(self) -> int:
        return max(self.connections)

    @property
    def few(self) -> int:
        """16 connections, or what comes closest in a short run."""
        return min(self.connections, key=lambda n: abs(n - 16))


QUICK = Plan(rounds=2, seconds=1.5, warm_up_s=1.5, starts=2, syncs=100, idle_s=75.0)
