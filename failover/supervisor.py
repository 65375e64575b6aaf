"""Runs failover in any Python process: the lease on a thread and a connection of its own, the rest on APScheduler."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from failover.beating import Heartbeat
from failover.config import Config
from failover.database import Database
from failover.elector import Elector, Surroundings
from failover.engines import Pools
from failover.exchange import BeatAnswer, Exchange
from failover.gauge import QueueGauge
from failover.heartbeat import HeartbeatStore, Report, SqlHeartbeatStore, doubled
from failover.jobs import Jobs
from failover.lease import LeaseStore, SqlLeaseStore
from failover.model import Action, Decision, Identity, Role, State
from failover.queue import EventQueue
from failover.replay import Handler, Replay
from failover.status import Hooks, Status
from failover.wakeup import Wakeup, no_channel

_log = logging.getLogger("protecao.failover")
_DELIVER_EVERY_S = 0.1


class Supervisor:
    """One node's failover. `start` it, ask `is_leader()`, `role` and `status()` from any thread, `stop` it."""

    def __init__(
        self,
        me: Identity,
        config: Config,
        leases: LeaseStore,
        heartbeats: HeartbeatStore,
        *,
        queue: EventQueue | None = None,
        replay: Replay | None = None,
        hooks: Hooks | None = None,
        url: str | None = None,
        version: str = "",
        settings_digest: str | None = None,
        epoch_seen: int = 0,
        exchange: Exchange | None = None,
        line: Callable[[], int | None] = no_channel,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`exchange`: beats in one message, in place of `heartbeats`; `line`: where word of the lease may come from.

        `settings_digest`: `failover.heartbeat.Report`'s.
        """
        self.me = me
        self.config = config
        self._queue, self._replay = queue, replay
        self._hooks = hooks or Hooks()
        self._url, self._version, self._settings_digest = url, version, settings_digest
        self._monotonic = monotonic
        self._gauge = QueueGauge(queue)
        self._decision = Decision(State.STARTING)
        self._leaving, self._ended = threading.Event(), threading.Event()
        self._wakeup = Wakeup(line)
        self._thread: threading.Thread | None = None
        self._jobs = Jobs(monotonic)
        self._heartbeat = Heartbeat(me, config, heartbeats, exchange, monotonic, self._report, self._hooks.head_seq)
        self.elector = Elector(me, config, leases, monotonic, self._look_around, epoch_seen, self._hooks.is_busy)

    def start(self) -> None:
        """Starts the lease's thread and the jobs. Call it after a fork, never before."""
        if self._thread is not None:
            raise RuntimeError("this supervisor has been started")
        self._thread = threading.Thread(target=self._keep_the_lease, name="failover-lease", daemon=True)
        self._thread.start()
        self._jobs.every(self.config.heartbeat_interval, "beat", self.beat)
        if self._replay is not None:
            # Sooner where there is something to send on.
            self._jobs.every(self.config.heartbeat_interval, "replay", self.replay)
        if self._queue is not None:
            self._jobs.every(60.0, "trim", self._trim)
        self._jobs.every(3600.0, "forget", self._heartbeat.forget)
        self._jobs.start()

    def leave(self) -> None:
        """Resigns at once, for good. Replay goes on until `stop`: others of this node may still queue events."""
        self._leaving.set()
        self._wakeup.ring()

    def stop(self, timeout: float = 5.0) -> bool:
        """Resigns at once, sends on what is queued, then ends the jobs; at most `timeout` seconds for each.

        Gives False if the lease's thread does not end. Nothing is queued any more when this is called: what its last
        beat says of the queue is final.
        """
        self.leave()
        if self._thread is None:
            return True
        self._deliver(timeout)
        self._ended.set()
        self._wakeup.ring()
        self._jobs.stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self.sign_off()
        return True

    def let_go(self, timeout: float = 5.0) -> None:
        """Ends the jobs and the lease's thread, and leaves the lease to another process of this very instance."""
        self._jobs.stop()
        self._ended.set()
        self._wakeup.ring()
        if self._thread is not None:
            self._thread.join(timeout)

    def is_leader(self) -> bool:
        """Whether this node may act as the leader at this moment."""
        return self.elector.is_leader()

    @property
    def asking_since(self) -> float | None:
        """Since when (monotonic) the database has owed an answer to a look at the lease; None: it owes none."""
        return self.elector.asking_since

    @property
    def role(self) -> Role:
        """The part this node plays at this moment."""
        return self.elector.role

    @property
    def state(self) -> State:
        """Where this node is in its life."""
        return self.elector.state

    def status(self) -> Status:
        """Everything there is to show, without asking the database."""
        elector, lease = self.elector, self.elector.lease
        ends_at = elector.observe().lease_expires_at
        return Status(
            me=self.me,
            role=self.role,
            state=elector.state,
            leading=elector.is_leader(),
            epoch=elector.epoch_seen,
            ledger_reachable=elector.ledger_since is not None,
            trouble=elector.trouble,
            lease_holder=lease.holder.node if lease else None,
            lease_expires_in_s=None if ends_at is None else ends_at - self._monotonic(),
            pending=self._heartbeat.pending,
            queue=self._gauge.stats,
            beats=self._heartbeat.beats,
            queue_trouble=self._gauge.trouble,
            doubled=doubled(self._heartbeat.beats, self.config.heartbeat_timeout),
            twins=self._heartbeat.twins,
            jobs=self._jobs.last_success_s(),
        )

    def beat(self) -> None:
        """Says how this node is and reads how the others are. Raises what the store raises."""
        self._heartbeat.beat(self._leaving, self._receive)

    def replay(self) -> None:
        """Sends the queue's rows on where the decision says so. Raises what the handler raises."""
        self._gauge.count()
        if self._replay is not None and Action.REPLAY in self._decision.actions:
            done = self._replay.run()
            if done.synced or done.dead:  # what is not taken is logged once, by the replay itself
                _log.info("replayed", extra={"synced": done.synced, "refused": done.refused, "set_aside": done.dead})
            self._gauge.count()

    def sign_off(self) -> None:
        """A last beat, where the database answers, which says with what in its queue this process ends."""
        if self.elector.ledger_since is not None:
            self._heartbeat.write_last()

    def _receive(self, answer: BeatAnswer) -> None:
        """Hands the lease that came with a beat to the lease's thread, and wakes that."""
        self.elector.receive(answer)
        self._wakeup.ring()

    def _deliver(self, timeout: float) -> None:
        """Waits until the queue is empty; this node's disk may go with it."""
        end = self._monotonic() + timeout
        while self._gauge.count().pending and self._monotonic() < end:
            self._wakeup.ring()
            try:
                self.replay()
            except Exception as error:
                _log.debug("the queue cannot be delivered yet", extra={"reason": str(error)})
            self._ended.wait(_DELIVER_EVERY_S)
        if left := self._gauge.count().pending:
            _log.error("this node ends with events in its queue: its next start delivers them", extra={"events": left})

    def _trim(self) -> None:
        if self._queue is not None:
            self._queue.trim()

    def _report(self) -> Report:
        queued = self._gauge.count()
        return Report(
            role=self.role.value,
            state=self.state.value,
            url=self._url,
            version=self._version,
            applied_seq=self._hooks.applied_seq(),
            queue=queued.pending,
            queue_oldest_s=queued.oldest_s,
            settings_digest=self._settings_digest,
        )

    def _look_around(self) -> Surroundings:
        primary = self._heartbeat.primary
        return Surroundings(
            ready=self._hooks.ready(),
            stop_requested=self._leaving.is_set(),
            primary=primary.primary,
            primary_beat_age=primary.age(self._monotonic()),
            primary_healthy_since=primary.healthy_since,
            pending=self._heartbeat.pending,
            own_pending=self._gauge.stats.pending,
        )

    def _keep_the_lease(self) -> None:
        has_news = True
        while True:
            ended, before = self._ended.is_set(), self.state
            try:
                self._decision = self.elector.tick(has_news=has_news)
                if Action.REPLAY in self._decision.actions:
                    self._jobs.soon("replay")
                if (before is State.STARTING) != (self.state is State.STARTING):
                    self._jobs.soon("beat")  # whether the lease may be handed to it hangs on that
            except Exception:
                # Trust ends by itself; this thread must outlive a hook's fault.
                _log.exception("a tick failed")
            if ended:
                return
            has_news = self._wakeup.wait(self.elector.rest_s())


def supervise(
    url: str,
    me: Identity,
    config: Config | None = None,
    *,
    queue: EventQueue | None = None,
    handler: Handler | None = None,
    create_tables: bool = False,
) -> Supervisor:
    """A supervisor on the database at `url`, with a connection for the lease and one for all else. Not started."""
    pools = Pools()
    leases, rest = Database(url, pools=pools), Database(url, pools=pools)
    if create_tables:
        rest.create_tables()
    replay = Replay(queue, handler) if queue and handler else None
    stores = SqlLeaseStore(leases), SqlHeartbeatStore(rest)
    return Supervisor(me, config or Config(), *stores, queue=queue, replay=replay)
