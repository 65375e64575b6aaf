"""Saves the counts of `/stats`, for the time in which the ledger cannot be asked.

Counting costs the ledger a dozen statements, and gives the same again while nothing is added to its log. What goes on
meanwhile, who beats and who leads, the supervisor knows anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from api.node.clock import Clock
from api.stats import presence
from api.stats.counts import Counting
from api.stats.last_known import Counts, save_last_known
from failover import Status
from failover.heartbeat import Beat
from failover.model import State

#: So often it is counted all the same: time makes licenses expire.
_COUNT_EVERY_S = 300.0


class LastKnownWriter:
    """What one node knows of its cluster, written to `folder`. `head`: where the log was at the last look."""

    def __init__(
        self,
        folder: Path,
        counting: Counting,
        clock: Clock,
        status: Callable[[], Status],
        head: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._counting, self._clock = folder, counting, clock
        self._status, self._head, self._monotonic = status, head, monotonic
        #: What was counted last, with the log's head before and the moment (monotonic).
        self._counted: tuple[Counts, int, float] | None = None

    def write(self) -> None:
        """Writes the counts. Raises `LedgerError` and OSError."""
        head, now = self._head(), self._monotonic()
        counted = self._counted
        if counted is None or counted[1] != head or now - counted[2] >= _COUNT_EVERY_S:
            counted = self._counted = (self._counting.counts(), head, now)
            save_last_known(self._folder, counted[0])
            return
        status = self._status()
        if status.ledger_reachable:
            save_last_known(
                self._folder, with_heartbeats(counted[0], status, self._clock.now(), self._counting.fresh_s)
            )


def with_heartbeats(counts: Counts, status: Status, now: float, fresh_s: float = presence.FRESH_S) -> Counts:
    """`counts` as they are at `now` (ledger time) by what the supervisor knows of the others. Pure.

    `fresh_s`: how old the beat of a node that is there may be.
    """
    beats = {beat.identity.node: beat for beat in sorted(status.beats, key=lambda beat: -beat.age_s)}
    nodes = [_with_beat(node, beats.get(node["id"]), fresh_s) for node in counts.nodes]
    return replace(counts, at=now, nodes=nodes, lease={**counts.lease, **_lease(status)})


def _with_beat(node: Mapping[str, Any], beat: Beat | None, fresh_s: float) -> dict[str, Any]:
    if beat is None:
        return presence.aged(node, node["beat_age_s"], fresh_s)
    is_there = beat.age_s < fresh_s and beat.report.state != State.STOPPING
    known = {**node, "presence": presence.Presence.BEATING.value} if is_there else node
    return presence.aged(known, beat.age_s, fresh_s)


def _lease(status: Status) -> dict[str, Any]:
    left = status.lease_expires_in_s
    is_held = status.lease_holder is not None and left is not None and left > 0
    return {
        "holder": status.lease_holder if is_held else None,
        "epoch": status.epoch,
        "expires_in_s": round(left, 1) if is_held and left is not None else None,
    }
