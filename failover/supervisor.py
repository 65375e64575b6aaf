"""Runs failover in any Python process: the lease on a thread and a connection of its own, the rest on APScheduler."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from failover.config import Config
from failover.database import Database
from failover.elector import Elector, Surroundings
from failover.engines import Pools
from failover.errors import QueueError
from failover.exchange import BeatAnswer, Exchange
from failover.heartbeat import Beat, HeartbeatStore, PrimaryHealth, Report, SqlHeartbeatStore, doubled
from failover.jobs import Jobs
from failover.lease import LeaseStore, SqlLeaseStore
from failover.liveness import BeatWatch
from failover.model import Action, Decision, Identity, Kind, Role, State
from failover.queue import EventQueue, QueueStats
from failover.replay import Handler, Replay
from failover.wakeup import Wakeup, no_channel

_log = logging.getLogger("protecao.failover")
#: Rows younger than this do not hold up a failback: intake goes on meanwhile.
_QUEUE_GRACE_S = 2.0
_FORGET_AFTER_S = 7 * 86_400.0
#: How long a beat must have been seen unchanged before it is forgotten, whatever the database's clock makes of its age.
_FORGET_WATCHED_S = 3600.0
_DELIVER_EVERY_S = 0.1


def _nothing_applied() -> int:
    return 0


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the host process knows: whether it can work, how far it has applied the log, and where the log's head is."""

    ready: Callable[[], bool] = _always
    applied_seq: Callable[[], int] = _nothing_applied
    #: Asked at each beat, on the scheduler; may raise while the database is away.
    head_seq: Callable[[], int] = _nothing_applied
    #: Whether this node is busy: then it looks at the lease at every poll, else as often as it beats.
    is_busy: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """This node as it is at one moment. Ages in seconds; `jobs`: seconds since each last succeeded, None: never.

    `queue_trouble`: why the queue could not be looked into; `doubled`: ranks that several live nodes say are theirs;
    `twins`: nodes of which several processes have beaten for longer than a deploy takes, and how many.
    """

    me: Identity
    role: Role
    state: State
    leading: bool
    epoch: int
    ledger_reachable: bool
    trouble: str | None
    lease_holder: str | None
    lease_expires_in_s: float | None
    pending: int
    queue: QueueStats
    beats: tuple[Beat, ...]
    queue_trouble: str | None
    doubled: dict[int, tuple[str, ...]]
    twins: dict[str, int]
    jobs: dict[str, float | None]


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
        epoch_seen: int = 0,
        exchange: Exchange | None = None,
        line: Callable[[], int | None] = no_channel,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`exchange`: beats in one message, in place of `heartbeats`; `line`: where word of the lease may come from."""
        self.me = me
        self.config = config
        self._leases, self._heartbeats, self._queue, self._replay = leases, heartbeats, queue, replay
        self._exchange = exchange
        self._hooks = hooks or Hooks()
        self._url, self._version = url, version
        self._monotonic = monotonic
        self._beat_watch = BeatWatch(config.heartbeat_timeout)
        self._health = PrimaryHealth(config.heartbeat_timeout)
        self._surroundings = Surroundings(ready=False)
        self._beats: tuple[Beat, ...] = ()
        self._twins: dict[str, int] = {}
        self._pending = 0
        self._heads = deque((0, 0), maxlen=2)
        self._queue_stats = QueueStats(0, 0, None, 0, 0)
        self._queue_trouble: str | None = None
        self._decision = Decision(State.STARTING)
        self._hand_over_to: Identity | None = None
        self._leaving, self._ended = threading.Event(), threading.Event()
        self._wakeup = Wakeup(line)
        self._beating = threading.Lock()
        self._thread: threading.Thread | None = None
        self._jobs = Jobs(monotonic)
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
        self._jobs.every(3600.0, "forget", self._forget)
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
        self._sign_off()
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
            pending=self._pending,
            queue=self._queue_stats,
            beats=self._beats,
            queue_trouble=self._queue_trouble,
            doubled=doubled(self._beats, self.config.heartbeat_timeout),
            twins=self._twins,
            jobs=self._jobs.last_success_s(),
        )

    def switch_over(self, node: str) -> bool:
        """Asks the leader's own supervisor, this one, to hand the lease to `node`. False: it does not beat, or work."""
        able = [b for b in self._beats if b.who.node == node and b.may_lead]
        fresh = [b.who for b in able if b.is_fresh(self.config.heartbeat_timeout)]
        if not fresh or not self.is_leader():
            return False
        self._hand_over_to = fresh[0]
        self._wakeup.ring()
        return True

    def promote(self) -> bool:
        """Takes the lease for this node, whoever holds it; the other's writes are fenced out. False: lost a race."""
        lease = self._leases.watch()
        timeout = self.config.heartbeat_timeout
        if lease is None or lease.expires_in < 0:
            taken = self._leases.acquire(self.me, timeout, self.elector.epoch_seen)
        else:
            taken = self._leases.hand_over(lease, self.me, timeout, Kind.SWITCHOVER)
        self._wakeup.ring()
        return taken is not None

    def beat(self) -> None:
        """Says how this node is and reads how the others are. Raises what the store raises.

        One that leaves says nothing until the end: that it stops with an empty queue is to be its last word.
        """
        heard = self._say_how_it_is(unless=self._leaving)
        if self._leaving.is_set():
            return
        # The head as it was two beats ago: the primary's last beat is up to one old, and knew less than the log then.
        head = self._heads[0]
        self._heads.append(self._hooks.head_seq())
        read, now, timeout = self._heard(heard), self._monotonic(), self.config.heartbeat_timeout
        beats = self._beat_watch.saw(read, now)
        self._health.saw(beats, now)
        before, after = doubled(self._beats, timeout), doubled(beats, timeout)
        self._beats, self._pending = beats, pending(beats, head, self._health.primary, timeout)
        for rank in after.keys() - before.keys():
            _log.error("several live nodes have one rank", extra={"rank": rank, "nodes": after[rank]})
        self._twins = self._beat_watch.twins(beats, now, self.config.deploy_overlap)

    def replay(self) -> None:
        """Sends the queue's rows on where the decision says so. Raises what the handler raises."""
        self._count_queue()
        if self._replay is not None and Action.REPLAY in self._decision.actions:
            done = self._replay.run()
            if done.synced or done.dead:  # what is not taken is said once, by the replay itself
                _log.info("replayed", extra={"synced": done.synced, "refused": done.refused, "set_aside": done.dead})
            self._count_queue()

    def _heard(self, heard: BeatAnswer | None) -> Sequence[Beat]:
        """What the others said; the lease, where that came with it, is news for its thread."""
        if heard is None:
            return self._heartbeats.read()
        self.elector.overhear(heard)
        self._wakeup.ring()
        return heard.beats

    def _say_how_it_is(self, unless: threading.Event | None = None) -> BeatAnswer | None:
        # One at a time: a beat that was under way must not be the one after the last.
        with self._beating:
            self._count_queue()
            report = self._report()
            # Asked after the report was made: this one is from before it left.
            if unless is not None and unless.is_set():
                return None
            if self._exchange is not None:
                return self._exchange.beat(self.me, report)
            self._heartbeats.write(self.me, report)
            return None

    def _sign_off(self) -> None:
        """A last beat, which says that this process ends, and with what in its queue: nobody has to wait for it."""
        if self.elector.ledger_since is None:
            return
        try:
            self._say_how_it_is()
        except Exception as error:
            _log.warning("the last beat was not taken", extra={"reason": str(error)})

    def _deliver(self, timeout: float) -> None:
        """Waits until the queue is empty; this node's disk may go with it."""
        end = self._monotonic() + timeout
        while self._queued() and self._monotonic() < end:
            self._wakeup.ring()
            try:
                self.replay()
            except Exception as error:
                _log.debug("the queue cannot be delivered yet", extra={"reason": str(error)})
            self._ended.wait(_DELIVER_EVERY_S)
        if left := self._queued():
            _log.error("this node ends with events in its queue: its next start delivers them", extra={"events": left})

    def _queued(self) -> int:
        self._count_queue()
        return self._queue_stats.pending

    def _count_queue(self) -> None:
        """A queue whose disk fails must not stop the beat: what was counted last stands, and `status` says why."""
        if self._queue is None:
            return
        try:
            self._queue_stats, self._queue_trouble = self._queue.stats(), None
        except QueueError as error:
            self._queue_trouble = str(error)

    def _trim(self) -> None:
        if self._queue is not None:
            self._queue.trim()

    def _forget(self) -> None:
        gone = self._beat_watch.long_gone(self._beats, self._monotonic(), _FORGET_AFTER_S, _FORGET_WATCHED_S)
        self._heartbeats.forget(gone)

    def _report(self) -> Report:
        return Report(
            role=self.role.value,
            state=self.state.value,
            url=self._url,
            version=self._version,
            applied_seq=self._hooks.applied_seq(),
            queue=self._queue_stats.pending,
            queue_oldest_s=self._queue_stats.oldest_s,
        )

    def _look_around(self) -> Surroundings:
        if not self.is_leader():
            self._hand_over_to = None
        return Surroundings(
            ready=self._hooks.ready(),
            stop_requested=self._leaving.is_set(),
            primary=self._health.primary,
            primary_beat_age=self._health.age(self._monotonic()),
            primary_healthy_since=self._health.healthy_since,
            hand_over_to=self._hand_over_to,
            pending=self._pending,
            own_pending=self._queue_stats.pending,
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


def pending(beats: Sequence[Beat], head: int, primary: Identity | None, timeout: float) -> int:
    """What a failback waits for: rows that fresh nodes have had queued for a while, and events rank 1 has not applied.

    A dead node's queue does not block.
    """
    fresh = [beat for beat in beats if beat.is_fresh(timeout)]
    queued = sum(b.report.queue for b in fresh if (b.report.queue_oldest_s or 0.0) > _QUEUE_GRACE_S)
    applied = max((beat.report.applied_seq for beat in fresh if beat.who == primary), default=head)
    return queued + max(0, head - applied)


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
