"""The numbers of `GET /stats`: what the ledger counts, what this node is, and the last known where the ledger is away.

A number that was never known is null.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from api.config.settings import Settings
from api.ledger.database import Database
from api.ledger.errors import LedgerBusy, LedgerError
from api.node.clock import Clock
from api.node.identity import Node
from api.node.published import Published, QueueState
from api.stats import cluster
from api.stats.counts import Counting
from api.stats.last_known import UNKNOWN, Counts, aged, last_known_counts

#: Counts are read again after a second, or after this many times what it took to count: a large ledger is spared.
_FRESH_S = 1.0
_COST_FACTOR = 20


class ReportedNode(Protocol):
    """What a report says of the worker that gives it; `api.runtime.Runtime` is one."""

    settings: Settings
    clock: Clock
    started: float
    node: Node
    node_state: Published
    admins: Database

    @property
    def ledger_reachable(self) -> bool: ...

    @property
    def waiting_for(self) -> str | None: ...


class Stats:
    """The report of one process, from counts that are kept for a second."""

    def __init__(self, runtime: ReportedNode) -> None:
        self._runtime = runtime
        self._counts = UNKNOWN
        self._counting_of = Counting(runtime.admins, runtime.clock, runtime.node.id, runtime.settings.heartbeat_timeout)
        #: Until when (monotonic) the counts are current, and when they are counted again at the earliest.
        self._current_until = self._count_at = float("-inf")
        self._counting = threading.Lock()

    def report(self) -> dict[str, Any]:
        """The JSON of `/stats`; without the ledger its `node.ledger` is `unreachable` and the counts are the last."""
        reachable = self._runtime.ledger_reachable and self._refresh()
        published = self._runtime.node_state.read()
        is_current = reachable and self._runtime.clock.monotonic() < self._current_until
        counts = self._counts if is_current else self._last_known()
        return {
            "node": self._node(reachable),
            "lease": counts.lease,
            "nodes": counts.nodes,
            "sync": cluster.with_queue(counts.sync, QueueState() if published is None else published.queue),
            "licenses": counts.licenses,
            "machines": counts.machines,
            "checks": counts.checks,
            "failovers": counts.failovers,
        }

    def _last_known(self) -> Counts:
        """What this process or another of the node counted last, as it is by now."""
        newest = max(
            self._counts, last_known_counts(self._runtime.settings.data_dir), key=lambda counts: counts.at or 0.0
        )
        return aged(newest, self._runtime.clock.now(), self._runtime.settings.heartbeat_timeout)

    def _node(self, reachable: bool) -> dict[str, Any]:
        runtime, node = self._runtime, self._runtime.node
        return {
            "id": node.id,
            "rank": node.rank,
            "role": node.role,
            "state": node.state if runtime.waiting_for is None else "STARTING",
            "epoch": node.epoch,
            "uptime_s": round(runtime.clock.monotonic() - runtime.started, 1),
            "disk": runtime.settings.disk,
            "snapshot": self._snapshot(),
            "ledger": "reachable" if reachable else "unreachable",
        }

    def _snapshot(self) -> dict[str, Any]:
        """This node's copy of the ledger, as its supervisor last published it."""
        published = self._runtime.node_state.read()
        if published is None or published.snapshot is None:
            return {"seq": None, "lag_s": None, "licenses": None}
        lag = max(0.0, self._runtime.clock.now() - published.snapshot.as_of)
        return {"seq": published.snapshot.seq, "lag_s": round(lag, 1), "licenses": published.snapshot.licenses}

    def _refresh(self) -> bool:
        """Counts again where that is due, and gives whether the ledger answered."""
        # A call that comes while another counts takes the last counts: a slow ledger must not hold every thread.
        if not self._counting.acquire(blocking=self._counts is UNKNOWN):
            return True
        monotonic = self._runtime.clock.monotonic
        began = monotonic()
        try:
            if began >= self._count_at:
                self._counts = self._counting_of.counts()
                self._current_until = self._count_at = self._rested(began)
            return True
        except LedgerError as error:
            if not isinstance(error, LedgerBusy):
                return False
            self._count_at = self._rested(began)  # what took too long is not tried again at once
            return True
        finally:
            self._counting.release()

    def _rested(self, began: float) -> float:
        """When a count that began then may be made again."""
        now = self._runtime.clock.monotonic()
        return now + max(_FRESH_S, _COST_FACTOR * (now - began))
