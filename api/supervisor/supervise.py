"""The supervisor's process: one per node, whatever the number of workers. It holds the lease and says so.

Told to end, it resigns at once, and ends when its workers have: what they queue until then it takes to the ledger.

A lock on a file in `DATA_DIR` makes it the only one; the system drops the lock with the process. Beside our own
server it is a companion of the workers; under any other WSGI server the worker that gets the lock runs it.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection

from api import logs
from api.config.settings import Settings
from api.ledger import migrate
from api.ledger.database import Database
from api.ledger.errors import LedgerError, LedgerUnavailable
from api.ledger.log import brief_reading
from api.node.clock import Clock
from api.node.published import NodeState, Published
from api.node.troubles import Trouble
from api.stats.counts import Counting
from api.supervisor import duties, troubles
from api.supervisor.copying import Copy
from api.supervisor.last_known_writer import LastKnownWriter
from api.supervisor.pace import Pace
from api.supervisor.queueing import Queueing
from api.version import VERSION
from failover import Config, Hooks, Identity, SqlLeaseStore, Status, Supervisor
from failover.database import Database as LeaseDatabase
from failover.engines import Pools
from failover.errors import QueueBusy
from failover.exchange import SqlExchange
from failover.heartbeat import SqlHeartbeatStore
from failover.jobs import Jobs
from failover.session import DEFAULT_SCHEMA
from failover.sql import CHANNEL

_log = logs.get("supervision")

_PUBLISH_EVERY_S = 0.2
#: The same where nobody asks and nothing changes: what hangs on it are ages.
_REPEAT_S = 3.0
_FOLLOW_EVERY_S = 2.0
#: How often what `/stats` says is put by, for the time in which the ledger cannot be asked.
_REMEMBER_EVERY_S = 15.0
_FORGET_EVERY_S = 3600.0
_LOCK_NAME = "supervisor.lock"
_LOCK_RETRY_S, _DISK_RETRY_S = 0.5, 1.0
_SCHEMA_LOOK_S, _SCHEMA_RETRY_S = 0.03, 0.5
#: How long a node that ends tries to empty its queue; its server has a little more patience than that.
_DELIVER_S = 8.0


def run(settings: Settings, instance: str) -> int:
    """The life of a companion: at `LEAVE` the lease is resigned at once, at `WORKERS_ENDED` it ends. Gives 0."""
    from api.server import LEAVE, WORKERS_ENDED

    told = {LEAVE: threading.Event(), WORKERS_ENDED: threading.Event()}
    # Waited for by threads: a handler that interrupts this one inside an event's own lock could not set it.
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    for number, event in told.items():
        threading.Thread(target=_set_when_told, args=(number, event), name=number.name, daemon=True).start()
    logs.configure(settings.log_level, settings.log_format)
    supervise(settings, instance, *told.values())
    return 0


def _set_when_told(number: signal.Signals, event: threading.Event) -> None:
    signal.sigwait({number})
    event.set()


def supervise(
    settings: Settings,
    instance: str,
    stop: threading.Event,
    workers_ended: threading.Event | None = None,
    begun: threading.Event | None = None,
    lease_left_to_sibling: threading.Event | None = None,
) -> None:
    """Waits to be the node's only supervisor, then leads or follows until `stop` is set, upon which it resigns.

    Then it waits for `workers_ended`, if that is given, takes what they left in the queue to the ledger, and ends.
    `begun` is set once it is the only one and about to look at the lease; one that ends before that resigns nothing.
    Where `lease_left_to_sibling` is set before `stop`, it does not resign: another process of this instance goes on
    with the lease.
    """
    # Under other servers, losing the lock to another worker is how it should be.
    patience_s = math.inf if workers_ended is None else config_of(settings).deploy_overlap
    with _alone(settings.data_dir, stop, patience_s) as alone:
        if not alone:
            return
        pools = Pools()
        rest = Database(settings.database_url, pool_size=1, pools=pools)
        is_there = _await_schema(rest, stop)
        clock = Clock()
        files = _files(settings, rest, clock, stop)
        if files is None:
            rest.close()
            return
        copy, queueing = files
        if is_there:
            with contextlib.suppress(LedgerError):
                copy.look()  # the first look at the lease is to find it known whether this node may lead
        # A connection of its own: a job that hangs must not lose the lease.
        leases = LeaseDatabase(settings.database_url, pools=pools, schema=DEFAULT_SCHEMA, channel=CHANNEL)
        published = Published(settings.data_dir)
        epoch_seen = published.epoch_seen(copy.source)
        supervisor = _supervisor(settings, instance, leases, rest, copy, queueing, epoch_seen)
        jobs, counting = Jobs(), Counting(rest, clock, settings.node_id)

        def follow() -> None:
            try:
                queueing.go_back(copy.told)
            finally:
                copy.follow()

        # Sooner where it is due: to run a job costs more than to find that there is nothing to do.
        jobs.every(_FOLLOW_EVERY_S, "follow", follow)
        last_known_writer = LastKnownWriter(
            settings.data_dir, counting, clock, supervisor.status, lambda: copy.head_seen
        )
        jobs.every(_REMEMBER_EVERY_S, "remember", last_known_writer.write)
        proof = duties.run_on(jobs, settings, rest, supervisor, clock, queueing.evidence, lambda: copy.head_seen)
        jobs.every(_FORGET_EVERY_S, "forget machines", lambda: copy.forget_machines(clock.now()))
        peers = troubles.Peers(settings.peer_urls, clock.monotonic)
        saying = StatePublisher(published, supervisor, copy, jobs, queueing, clock, proof, peers)
        if begun is not None:
            begun.set()
        supervisor.start()
        jobs.start()
        try:
            while not stop.wait(_PUBLISH_EVERY_S):
                if copy.is_due:
                    jobs.soon("follow")
                saying.publish_news()
            if not (lease_left_to_sibling and lease_left_to_sibling.is_set()):
                supervisor.leave()
            while workers_ended and not workers_ended.wait(_PUBLISH_EVERY_S):
                saying.publish_news()
        finally:
            jobs.stop()
            if lease_left_to_sibling and lease_left_to_sibling.is_set():
                supervisor.let_go()
            else:
                supervisor.stop(_DELIVER_S)
            saying.publish()
            leases.close()
            rest.close()


def resign(settings: Settings, instance: str) -> None:
    """Resigns what a sibling of this instance held and nobody went on with; that it cannot is no error."""
    leases = LeaseDatabase(settings.database_url, schema=DEFAULT_SCHEMA)
    try:
        store = SqlLeaseStore(leases)
        held = store.watch()
        if held is not None and held.holder.instance == instance and store.resign(held.holder, held.epoch):
            _log.info("the lease is resigned", extra={"node": held.holder.node, "epoch": held.epoch})
    except Exception as error:  # an interpreter that ends may refuse even a thread
        _log.warning("the lease runs out by itself", extra={"reason": str(error)})
    finally:
        leases.close()


def _await_schema(database: Database, stop: threading.Event) -> bool:
    """Until a worker has made the tables: the first look at the lease is to find it. Gives whether they are there.

    A ledger that is away is not waited for: that this node is isolated is the supervisor's to say.
    """
    wait = _SCHEMA_LOOK_S
    while not stop.is_set():
        try:
            if migrate.revision(database) is not None:
                return True
        except LedgerUnavailable:
            return False
        except LedgerError as error:
            _log.debug("the schema is not there yet", extra={"reason": str(error)})
        stop.wait(wait)
        wait = min(2 * wait, _SCHEMA_RETRY_S)
    return False


def _files(settings: Settings, database: Database, clock: Clock, stop: threading.Event) -> tuple[Copy, Queueing] | None:
    """The node's own files, opened; None when told to stop before the disk took them.

    Workers cannot be told anything without them, so a node with such a disk has no part in who leads.
    """
    said = ""
    while not stop.is_set():
        try:
            return _opened(settings, database, clock)
        except QueueBusy:
            _log.warning("the queue is being looked over by others of this node")
        except (OSError, sqlite3.Error) as error:
            said = _say_once(said, error)
        stop.wait(_DISK_RETRY_S)
    return None


def _opened(settings: Settings, database: Database, clock: Clock) -> tuple[Copy, Queueing]:
    """Raises OSError, `sqlite3.Error` and `QueueBusy`."""
    queueing = Queueing(settings, database, clock)
    pace = Pace(settings.heartbeat_interval, lambda: queueing.called_at)
    return Copy(settings, database, clock, queueing, pace), queueing


def _say_once(said: str, error: Exception) -> str:
    """Logs that the disk takes nothing, unless that is what was `said` last; gives what is said now."""
    reason = f"{type(error).__name__}: {error}"
    if reason != said:
        _log.error("this node's disk takes nothing: it has no part in who leads", extra={"reason": reason})
    return reason


def _supervisor(
    settings: Settings,
    instance: str,
    leases: LeaseDatabase,
    rest: Database,
    copy: Copy,
    queueing: Queueing,
    epoch_seen: int,
) -> Supervisor:
    me = Identity(instance, settings.node_id, settings.node_rank)
    return Supervisor(
        me,
        config_of(settings),
        SqlLeaseStore(leases),
        SqlHeartbeatStore(rest),
        queue=queueing.queue,
        replay=queueing.replay,
        hooks=Hooks(
            ready=copy.may_lead,
            applied_seq=copy.seq,
            head_seq=copy.head,
            # To look at a file of this machine costs nobody anything.
            is_busy=lambda: rest.is_sqlite or copy.pace.is_asked,
        ),
        url=settings.node_url,
        version=VERSION,
        epoch_seen=epoch_seen,
        exchange=None if rest.is_sqlite else SqlExchange(_Briefly(rest), copy),
        line=leases.line,
    )


class _Briefly:
    """`failover.database.Storage` on the ledger's connections: what a beat asks may take no longer than a beat."""

    is_sqlite = False

    def __init__(self, database: Database) -> None:
        self._database = database

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        return brief_reading(self._database)

    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        return self._database.writing()


def config_of(settings: Settings) -> Config:
    """The durations that the settings give; the rest are the package's own."""
    return Config(
        heartbeat_interval=settings.heartbeat_interval,
        heartbeat_timeout=settings.heartbeat_timeout,
        failback_delay=settings.failback_delay,
        poll=min(0.5, settings.heartbeat_interval),
        # Half a second by default; every time-out that the settings take leaves room for two renewals.
        margin=min(0.5, settings.heartbeat_timeout / 12),
    )


class StatePublisher:
    """What the workers are told of this node."""

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
        self._unwritten: str | None = None
        self._published_news: object = None
        self._published_at = float("-inf")

    def publish_news(self) -> None:
        """Publishes while somebody asks, or where there is news, and else now and then only."""
        supervisor, copy = self._supervisor, self._copy
        news = (supervisor.role, supervisor.state, supervisor.asking_since, copy.watch, copy.trouble, copy.ledger)
        if copy.pace.is_asked or news != self._published_news or time.monotonic() - self._published_at >= _REPEAT_S:
            self._published_news, self._published_at = news, time.monotonic()
            self.publish()

    def publish(self) -> None:
        """Writes it down. A disk that does not take it is said once."""
        self._queueing.listen(self._supervisor.asking_since)
        self._copy.tell()
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
            troubles=self._troubles.say(self._seen(status)),
            jobs=status.jobs | self._jobs.last_success_s(),
        )

    def _no_time(self) -> str | None:
        """Why nothing may be signed with this node's time."""
        dispute = self._clock.dispute
        return None if dispute is None or self._clock.is_trusted else troubles.trouble_of(dispute)

    def _seen(self, status: Status) -> Iterator[str]:
        yield from troubles.of_the_cluster(status)
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
        yield from troubles.of_what_was_set_aside([] if queueing.queue is None else queueing.queue.kept_aside())


def _finite(moment: float) -> float | None:
    """JSON has no infinity."""
    return moment if math.isfinite(moment) else None


def _lease_rank(supervisor: Supervisor, status: Status) -> int | None:
    """The rank that leads. What this node has just taken is known before the lease is read the next time."""
    lease = supervisor.elector.lease
    if status.leading:
        return supervisor.me.rank
    return lease.holder.rank if lease is not None and (status.lease_expires_in_s or 0.0) > 0 else None


@contextlib.contextmanager
def _alone(folder: Path, stop: threading.Event, patience_s: float) -> Iterator[bool]:
    """Waits for the lock; gives False when told to stop before it came. After `patience_s` it says that it waits."""
    lock, said, since = FileLock(folder / _LOCK_NAME), "", time.monotonic()
    while not stop.is_set():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            if time.monotonic() - since > patience_s:
                other = Published(folder).read()
                _log.error("trouble", extra={"what": Trouble.FOLDER_SHARED(node=other.node if other else "unknown")})
                patience_s = math.inf
            stop.wait(_LOCK_RETRY_S)
            continue
        except OSError as error:
            said = _say_once(said, error)
            stop.wait(_DISK_RETRY_S)
            continue
        try:
            yield True
        finally:
            lock.release()
        return
    yield False
