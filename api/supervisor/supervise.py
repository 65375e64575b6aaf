"""The life of a node's supervisor, one per node, whatever the number of workers: it holds the lease and publishes so.

A lock on a file in `DATA_DIR` makes it the only one. Beside our own server it is a companion of the workers
(`api.supervisor.companion`); under any other WSGI server the worker that gets the lock runs it.
"""

from __future__ import annotations

import contextlib
import math
import threading

from api.config.settings import Settings
from api.ledger.database import Database
from api.ledger.errors import LedgerError
from api.node.clock import Clock
from api.node.published import Published
from api.stats.counts import Counting
from api.supervisor import duties, troubles
from api.supervisor.copying import Copy
from api.supervisor.failover_setup import config_of, failover_supervisor
from api.supervisor.last_known_writer import LastKnownWriter
from api.supervisor.publishing import StatePublisher
from api.supervisor.queueing import Queueing
from api.supervisor.start import await_schema, node_files, sole_supervisor
from failover.database import Database as LeaseDatabase
from failover.engines import Pools
from failover.jobs import Jobs
from failover.session import DEFAULT_SCHEMA
from failover.sql import CHANNEL

_PUBLISH_EVERY_S = 0.2
_FOLLOW_EVERY_S = 2.0
#: How often the counts of `/stats` are saved, for the time in which the ledger cannot be asked.
_SAVE_COUNTS_EVERY_S = 15.0
_FORGET_EVERY_S = 3600.0
#: How long a node that ends tries to empty its queue; its server has a little more patience than that.
_DELIVER_S = 8.0


def supervise(
    settings: Settings,
    instance: str,
    stop: threading.Event,
    workers_ended: threading.Event | None = None,
    begun: threading.Event | None = None,
    lease_left_to_sibling: threading.Event | None = None,
    *,
    waits: bool = True,
) -> None:
    """Waits to be the node's only supervisor, then leads or follows until `stop` is set, upon which it resigns.

    Then it waits for `workers_ended`, if that is given, takes what they left in the queue to the ledger, and ends.
    `begun` is set once it is the only one and about to look at the lease; one that ends before that resigns nothing.
    Where `lease_left_to_sibling` is set before `stop`, it does not resign: another process of this instance goes on
    with the lease. Without `waits` it raises `SupervisorRuns` where another process is the node's supervisor.
    """
    # Under other servers, losing the lock to another worker is how it should be.
    patience_s = math.inf if workers_ended is None else config_of(settings).deploy_overlap
    with sole_supervisor(settings.data_dir, stop, patience_s, waits=waits) as is_sole:
        if not is_sole:
            return
        pools, clock = Pools(), Clock()
        rest = Database(settings.database_url, pool_size=1, pools=pools)
        is_there = await_schema(rest, stop)
        files = node_files(settings, rest, clock, stop)
        if files is None:
            rest.close()
            return
        if is_there:
            with contextlib.suppress(LedgerError):
                files[0].poll()  # the first look at the lease is to find it known whether this node may lead
        process = _Process(settings, instance, rest, pools, clock, *files)
        if begun is not None:
            begun.set()
        process.run(stop, workers_ended, lease_left_to_sibling or threading.Event())


class _Process:
    """The supervisor, its jobs and its publisher."""

    def __init__(
        self,
        settings: Settings,
        instance: str,
        rest: Database,
        pools: Pools,
        clock: Clock,
        copy: Copy,
        queueing: Queueing,
    ) -> None:
        """`rest`: the connection of everything but the lease."""
        self._rest, self._copy, self._queueing = rest, copy, queueing
        # A connection of its own: a job that hangs must not lose the lease.
        self._leases = leases = LeaseDatabase(
            settings.database_url, pools=pools, schema=DEFAULT_SCHEMA, channel=CHANNEL
        )
        published = Published(settings.data_dir)
        epoch_seen = published.epoch_seen(copy.source)
        self._supervisor = supervisor = failover_supervisor(
            settings, instance, leases, rest, copy, queueing, epoch_seen
        )
        self._jobs = jobs = Jobs()
        # Sooner where it is due: to run a job costs more than to find that there is nothing to do.
        jobs.every(_FOLLOW_EVERY_S, "follow", self._follow)
        counting = Counting(rest, clock, settings.node_id, settings.heartbeat_timeout)
        last_known = LastKnownWriter(settings.data_dir, counting, clock, supervisor.status, lambda: copy.head_seen)
        jobs.every(_SAVE_COUNTS_EVERY_S, "remember", last_known.write)
        proof = duties.run_on(jobs, settings, rest, supervisor, clock, queueing.evidence, lambda: copy.head_seen)
        jobs.every(_FORGET_EVERY_S, "forget machines", lambda: copy.forget_machines(clock.now()))
        peers = troubles.Peers(settings.peer_urls, clock.monotonic)
        self._publisher = StatePublisher(published, supervisor, copy, jobs, queueing, clock, proof, peers)

    def run(
        self, stop: threading.Event, workers_ended: threading.Event | None, lease_left_to_sibling: threading.Event
    ) -> None:
        """From the first look at the lease to the end, as `supervise` says."""
        self._supervisor.start()
        self._jobs.start()
        try:
            while not stop.wait(_PUBLISH_EVERY_S):
                if self._copy.is_due:
                    self._jobs.soon("follow")
                self._publisher.publish_news()
            if not lease_left_to_sibling.is_set():
                self._supervisor.leave()
            while workers_ended and not workers_ended.wait(_PUBLISH_EVERY_S):
                self._publisher.publish_news()
        finally:
            self._end(lease_left_to_sibling)

    def _end(self, lease_left_to_sibling: threading.Event) -> None:
        self._jobs.stop()
        if lease_left_to_sibling.is_set():
            self._supervisor.let_go()
        else:
            self._supervisor.stop(_DELIVER_S)
        self._publisher.publish()
        self._leases.close()
        self._rest.close()

    def _follow(self) -> None:
        try:
            self._queueing.go_back(self._copy.published_until)
        finally:
            self._copy.follow()
