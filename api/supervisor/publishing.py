"""What the supervisor knows, written to the file that all workers of its node read."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from api import logs
from api.node.clock import Clock
from api.node.published import NodeState, Published
from api.supervisor import duties, troubles
from api.supervisor.copying import Copy
from api.supervisor.queueing import Queueing
from failover import Status, Supervisor
from failover.jobs import Jobs

_log = logs.get("supervision")

#: How often the state is written where no client calls and nothing changes: only ages depend on it.
_REPEAT_S = 3.0
_LIST_EVERY_S = 5.0


class StatePublisher:
    """Publishes what the supervisor knows of this node, for its workers to answer by."""

    def __init__(
        self,
        published: Published,
        supervisor: Supervisor,
        copy: Copy,
        jobs: Jobs,
        queueing: Queueing,
        clock: Clock,
        proof: duties.Proof,
        peers: troubles.Peers,
    ) -> None:
        self._published, self._supervisor, self._clock = published, supervisor, clock
        self._copy, self._jobs, self._queueing = copy, jobs, queueing
        self._proof, self._peers = proof, peers
        self._troubles = troubles.WarningLog()
        self._set_aside: list[Path] = []
        self._listed_at = float("-inf")
        self._unwritten: str | None = None
        self._published_news: object = None
        self._published_at = float("-inf")

    def publish_news(self) -> None:
        """Publishes while clients call, or where there is news, and else every three seconds."""
        supervisor, copy = self._supervisor, self._copy
        news = (supervisor.role, supervisor.state, supervisor.asking_since, copy.watch, copy.trouble, copy.ledger)
        if copy.pace.is_asked or news != self._published_news or time.monotonic() - self._published_at >= _REPEAT_S:
            self._published_news, self._published_at = news, time.monotonic()
            self.publish()

    def publish(self) -> None:
        """Writes the state. A disk that does not take it is logged once."""
        self._queueing.listen(self._supervisor.asking_since)
        self._copy.before_publishing()
        try:
            self._published.write(self._state())
            self._unwritten = None
        except OSError as error:
            if self._unwritten != str(error):
                _log.error("the node's state cannot be written", extra={"reason": str(error)})
            self._unwritten = str(error)

    def _state(self) -> NodeState:
        supervisor, copy = self._supervisor, self._copy
        status = supervisor.status()
        return NodeState(
            at=time.monotonic(),
            instance=supervisor.me.instance,
            node=supervisor.me.node,
            role=status.role.value,
            state=status.state.value,
            epoch=status.epoch,
            ledger_reachable=status.ledger_reachable,
            lease_rank=_lease_rank(supervisor, status),
            counting_since=_finite(copy.watch.since),
            counting_until=_finite(copy.watch.until),
            source=copy.source,
            snapshot=copy.state(),
            ledger=copy.ledger,
            queue=self._queueing.look(),
            waits_for=copy.waits_for or self._no_time(),
            troubles=self._troubles.update(self._seen(status)),
            jobs=status.jobs | self._jobs.last_success_s(),
        )

    def _no_time(self) -> str | None:
        """Why nothing may be signed with this node's time."""
        dispute = self._clock.dispute
        return None if dispute is None or self._clock.is_trusted else troubles.trouble_of(dispute)

    def _seen(self, status: Status) -> Iterator[str]:
        yield from troubles.of_the_cluster(status, self._supervisor.config.heartbeat_timeout)
        yield from self._peers.troubles(status.beats, ledger_reachable=status.ledger_reachable)
        yield from troubles.of_the_clock(self._clock)
        yield from troubles.of_the_ledger(self._copy.ledger_trouble)
        yield from troubles.of_the_copy(self._copy.trouble)
        yield from troubles.of_what_is_shown(
            self._copy.waits_for, self._queueing.is_contradicted or self._copy.is_alone, self._queueing.moved_file
        )
        yield from troubles.of_the_counts(self._proof.mended)
        queueing = self._queueing
        filled = 0.0 if queueing.queue is None else queueing.queue.filled(status.queue)
        yield from troubles.of_the_queue(queueing.trouble or status.queue_trouble, filled)
        yield from troubles.of_the_replay(queueing.held(), status.queue)
        yield from troubles.of_others_locks(queueing.blocked)
        yield from troubles.of_what_was_set_aside(self._files_set_aside())

    def _files_set_aside(self) -> list[Path]:
        """Queues of other ledgers; the folder is listed less often than the state is written."""
        queue, now = self._queueing.queue, time.monotonic()
        if queue is not None and now - self._listed_at >= _LIST_EVERY_S:
            self._set_aside, self._listed_at = queue.kept_aside(), now
        return self._set_aside


def _finite(moment: float) -> float | None:
    """JSON has no infinity."""
    return moment if math.isfinite(moment) else None


def _lease_rank(supervisor: Supervisor, status: Status) -> int | None:
    """The rank that leads. What this node has just taken is known before the lease is read the next time."""
    lease = supervisor.elector.lease
    if status.leading:
        return supervisor.me.rank
    return lease.holder.rank if lease is not None and (status.lease_expires_in_s or 0.0) > 0 else None
