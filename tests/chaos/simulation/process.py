"""One process of one node: the real supervisor, recorder and queue on a simulated machine, network and ledger."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from api.checks.batcher import identity
from api.checks.isolated import Isolated
from api.checks.recorder import Recorder
from api.checks.unit_of_work import Operation
from api.ledger.errors import LedgerError
from api.licensing import Watch
from api.node.clock import Clock
from api.node.identity import Node
from api.node.ledger_breaker import LedgerBreaker
from api.node.published import NodeState
from api.supervisor.duties.pace import HOLD_S, Pace
from api.supervisor.duties.watching import Limits, ProcessBeat, observe
from api.supervisor.queueing import Queueing
from failover import Hooks, Identity, Replay, Supervisor
from failover.elector import Surroundings
from failover.errors import FailoverError, NotLeading
from failover.queue import Event as QueueRow
from tests.chaos.simulation import culling, follower
from tests.chaos.simulation.books import Effect
from tests.chaos.simulation.database import Database, Transaction
from tests.chaos.simulation.disk import Disk, Watched
from tests.chaos.simulation.kernel import Kernel, Owner
from tests.chaos.simulation.network import BULK, READ, STORE, Link
from tests.chaos.simulation.remote import CopyReader, Lane, Remote
from tests.chaos.simulation.replaying import Handler
from tests.chaos.simulation.scenario import Scenario
from tests.chaos.simulation.stores import RemoteHeartbeats, RemoteLeases

#: What a node may say instead of a verdict; the client goes on to the next.
PROBLEMS = (LedgerError, FailoverError)
ISOLATED_MAX_AGE_S = 3600.0
FOLLOW_EVERY_S = 0.4


class SlowQueue:
    """The queue as the recorder sees it: its disk takes a moment, before the event is safe and after it."""

    def __init__(self, inner: Watched, pause: Callable[[], None]) -> None:
        self._inner, self._pause = inner, pause

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, events: Sequence[QueueRow], *, ledger: str = "") -> list[int]:
        """A crash may come before it and behind it."""
        self._pause()
        positions = self._inner.append(events, ledger=ledger)
        self._pause()
        return positions


class SimSupervisor(Supervisor):
    """The real one, whose thread and jobs are tasks of the simulation."""

    def tick(self) -> None:
        """One round of the lease's thread."""
        self._decision = self.elector.tick()
        trouble = self.elector.trouble
        assert trouble is None or trouble.startswith("StoreUnavailable"), trouble

    #: SIGTERM is to come while a round is under way: after its look at the lease, before its decision.
    stops_in_a_round = False

    def ask_to_stop(self) -> None:
        """SIGTERM has come."""
        self.leave()

    def _look_around(self) -> Surroundings:
        if self.stops_in_a_round:
            self.leave()
        return super()._look_around()

    @property
    def stops(self) -> bool:
        """Whether it has been asked to."""
        return self._leaving.is_set()


class Process(Owner):
    """A process that has just started on `disk`."""

    def __init__(
        self,
        kernel: Kernel,
        database: Database,
        scenario: Scenario,
        identity: Identity,
        disk: Disk,
        scratch: Path,
        seed: str,
        followed: Callable[[Process], None],
    ) -> None:
        super().__init__()
        self.kernel, self.database, self.me, self.disk = kernel, database, identity, disk
        #: Since when its supervisor has seen what it has seen.
        self.watches_since = kernel.now
        self.config, self._disk_s = scenario.config, scenario.disk_s
        self.random, self.followed = random.Random(seed), followed
        self.link = Link(random.Random(f"{seed}/link"), scenario.slow / 100)
        self.monotonic = disk.machine.monotonic
        self.clock = Clock(self.monotonic, disk.machine.wall)
        if disk.wall_skew is not None and disk.snapshot is not None:
            self.clock.start_from(disk.wall_skew, disk.snapshot.as_of)
        #: One that was set since it was measured last says nothing before the ledger's has been asked.
        self._clock_is_right = disk.wall_off_known == disk.machine.wall_off
        self._pace = Pace(self.monotonic)
        self.queue = disk.open_queue(scratch)
        self.state = disk.shared_state()
        self.remote = Remote(database, self, self.link)
        self.handler = Handler(self.remote, identity.node, self.clock)
        self.node = Node(identity.node, identity.rank, identity.instance, self.published)
        #: As in `api.supervisor.supervise`: no silence counts before it has been read.
        self.counting = Watch(until=0.0)
        self.queueing = SimQueueing(self.queue, self.state.breaker, self.monotonic, self.remote)
        self.supervisor = self._supervise()
        self.recorder = self._recorder(scratch)
        self.closed, self._at_work = False, 0

    @property
    def name(self) -> str:
        """Its node, and which process of it."""
        return f"{self.me.node}/{self.me.instance[:4]}"

    def start(self) -> None:
        """Starts everything that goes on by itself."""
        self._start_supervisor()

    def _start_supervisor(self) -> None:
        self.jobs: list[Any] = []
        for seconds, job in (
            (self.config.poll, self.tick),
            (self.config.heartbeat_interval, self.beat),
            (self.config.poll, self.replay),
            (FOLLOW_EVERY_S, self.follow),
            (FOLLOW_EVERY_S, self.reconnect),
            (0.7, self.lead),
        ):
            self.jobs.append(self._every(seconds, job))

    def restart_supervisor(self) -> None:
        """Its supervisor dies and is started again, with the same instance."""
        for task in self.jobs:
            if not task.dead:
                task.throw()
        self.supervisor, self.watches_since = self._supervise(), self.kernel.now
        self._start_supervisor()

    def once(self, job: Callable[[], Any]) -> None:
        """Does `job` as a task."""

        def body() -> None:
            with contextlib.suppress(*PROBLEMS):
                job()

        self.kernel.spawn(self, body)

    def ready(self) -> bool:
        """Whether it can answer."""
        return self._clock_is_right and self.clock.is_trusted

    def published(self) -> NodeState:
        """What its workers know of the supervisor."""
        supervisor = self.supervisor
        lease, ends_at = supervisor.elector.lease, supervisor.elector.observe().lease_expires_at
        valid = lease is not None and ends_at is not None and ends_at > self.monotonic()
        rank = self.me.rank if supervisor.is_leader() else lease.holder.rank if lease is not None and valid else None
        return NodeState(
            at=self.monotonic(),
            instance=self.me.instance,
            role=supervisor.role.value,
            state=supervisor.state.value,
            epoch=supervisor.elector.epoch_seen,
            ledger_reachable=supervisor.elector.ledger_since is not None,
            lease_rank=rank,
            counting_since=_finite(self.counting.since),
            counting_until=_finite(self.counting.until),
        )

    def submit(self, operation: Operation) -> Any:
        """The real recorder's outcome, from within a task of this process."""
        self._at_work += 1
        try:
            return self.recorder.submit(operation, identity)
        finally:
            self._at_work -= 1

    def finish(self) -> None:
        """Takes no more calls; signs off once its last answer is given and its queue is empty."""
        self.closed = True
        while self._at_work or self.queue.stats().pending:
            self.kernel.sleep(0.1, self)
        self.supervisor.sign_off()

    # -- what it does again and again ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """The lease's thread."""
        self.supervisor.tick()
        self.disk.epoch_seen = max(self.disk.epoch_seen, self.supervisor.elector.epoch_seen)

    def beat(self) -> None:
        """The heartbeat's job."""
        self.supervisor.beat()

    def replay(self) -> None:
        """The replay's job."""
        self.supervisor.replay()

    def reconnect(self) -> None:
        """What the supervisor's process does to let the recorder go back to the ledger."""
        copy = self.disk.snapshot
        self.queueing.go_back(copy.polled_at if copy is not None and copy.complete else None)

    def follow(self) -> None:
        """Brings the copy to where the log is."""
        database, before, sent = self.database, self.database.incarnation, self.monotonic()
        copy = self.disk.snapshot
        cursor = copy.seq if copy is not None else 0
        own = copy.own if copy is not None else {}
        settled = {id: times for id, times in own.items() if not self.queue.holds(id)}
        head, changes, rows, latest = self.remote.ask(
            lambda: (
                *follower.read(database.books, database.now(), cursor),
                dict(database.books.licenses),
                follower.latest_calls(database.books),
            )
        )
        received = self.monotonic()
        if received - sent > READ.timeout:
            return  # it was frozen over a sample, whose error may be half of that
        self.clock.witness_of(None if copy is None else copy.as_of, *latest)
        self.clock.sample(head.at, sent, received)
        if not self.clock.is_trusted:
            return  # a time that nobody vouches for is not written into the copy
        self.disk.wall_off_known, self.disk.wall_skew = self.disk.machine.wall_off, self.clock.wall_skew
        self._clock_is_right = True
        if copy is None or not copy.complete or not follower.is_same(copy, head):
            self.kernel.say(f"{self.name} makes its copy anew at {head.seq}")
            copy = self.disk.snapshot = follower.begun_anew(head)
            head, changes = self.remote.ask(lambda: follower.read_all(database.books, database.now()), BULK)
        follower.catch_up(copy, head, changes, sent, self.clock.at(sent))
        for id, times in settled.items():
            copy.settle(id, times, rows.get(id))
        if self.database.incarnation == before:
            self.followed(self)
        self.counting = self.remote.ask(lambda: culling.watched(self.database.books.watch), READ)

    def lead(self) -> None:
        """The leader's duties: each a fenced transaction, with pauses where a freeze would hurt."""
        epoch = self.supervisor.elector.trust.epoch
        if not self.supervisor.is_leader() or epoch is None:
            return
        self._breathe(0.5)
        begin = lambda: self.database.begin_fenced(self, self.me, epoch)  # noqa: E731 - what travels
        transaction = self._ask_store(begin)
        self._breathe(0.3)
        self._ask_store(lambda: self._do_duties(transaction, Effect(epoch, self.me.instance)))

    def _do_duties(self, transaction: Transaction, effect: Effect) -> None:
        """At the database: the watch, and one dead machine's seat."""
        books, said, here = self.database.books, self.database.now(), self.monotonic()
        self.clock.sample(said, here, here)
        if not self.clock.is_trusted:
            raise NotLeading("no two clocks agree on the time")
        now = self.clock.preferred(said)
        ahead = said - now
        beats = [
            ProcessBeat(
                node=beat.identity.node,
                started_at=beat.started_at - ahead,
                beat_at=beat.beat_at - ahead,
                state=beat.report.state,
                queue=beat.report.queue,
            )
            for beat in self.database.tables.heartbeats.read()
        ]
        limits = Limits(self.config.heartbeat_timeout, ISOLATED_MAX_AGE_S)
        self._pace.observe(now)
        was_set = self._pace.was_set_within(limits.timeout)
        found = observe(books.watch, beats, now, limits, was_set=was_set)
        locked = {id for one in self.database.open for id in one.licenses}
        free = [row.holding for row in books.licenses.values() if row.holding.license.id not in locked]
        dead = None if self._pace.was_set_within(HOLD_S) else culling.dead_machine(free, culling.watched(found), now)
        batch = (
            None if dead is None else culling.cull(*dead, self.me, effect.epoch, f"cull-{self.random.random()}", now)
        )
        self.database.commit_fenced(transaction, effect, batch)
        books.watch = found

    # -- how it is made -----------------------------------------------------------------------------------------------

    def _supervise(self) -> SimSupervisor:
        leases = RemoteLeases(self.database, self, self.link)
        heartbeats = RemoteHeartbeats(self.database, self, self.link)
        hooks = Hooks(ready=self.ready, applied_seq=self._applied, head_seq=self._head)
        queue: Any = self.queue
        noting = self.handler.note_dead
        replay = Replay(queue, self.handler, batch=20, on_dead=noting, monotonic=self.monotonic)
        supervisor = SimSupervisor(
            self.me,
            self.config,
            leases,
            heartbeats,
            queue=self.queue,  # type: ignore[arg-type]
            replay=replay,
            hooks=hooks,
            epoch_seen=self.disk.epoch_seen,
            monotonic=self.monotonic,
        )
        # Its two users are tasks: a lock of threads would stop the whole simulation.
        supervisor._heartbeat._writing = contextlib.nullcontext()  # type: ignore[assignment]
        return supervisor

    def _recorder(self, scratch: Path) -> Recorder:
        reader: Any = CopyReader(self.disk, self.state.changes, self.monotonic, ISOLATED_MAX_AGE_S)
        isolated = Isolated(scratch / f"{self.disk.name}.lane", reader, self.state.breaker, self.node, self.clock)
        isolated._queue = SlowQueue(self.queue, lambda: self._breathe(self._disk_s))  # type: ignore[assignment]
        isolated.lane = Lane(self.kernel, self, isolated._flush)  # type: ignore[assignment]
        remote: Any = self.remote
        recorder = Recorder(remote, self.node, self.clock, reader=reader, state=self.state, isolated=isolated)
        recorder._checks = Lane(self.kernel, self, recorder._flush_checks, recorder._next_lane)  # type: ignore[assignment]
        recorder._writes = Lane(self.kernel, self, recorder._flush_writes, recorder._next_lane)  # type: ignore[assignment]
        recorder._alone = Lane(self.kernel, self, recorder._flush_alone, recorder._next_lane)  # type: ignore[assignment]
        return recorder

    def _every(self, seconds: float, job: Callable[[], None]) -> Any:
        def loop() -> None:
            self.kernel.sleep(self.random.uniform(0.0, min(seconds, 0.3)), self)
            while True:
                # As a job's error is kept, and the job goes on.
                with contextlib.suppress(*PROBLEMS):
                    job()
                self.kernel.sleep(seconds * self.random.uniform(0.95, 1.1), self)

        return self.kernel.spawn(self, loop)

    def _applied(self) -> int:
        copy = self.disk.snapshot
        return copy.seq if copy is not None and copy.complete else 0

    def _head(self) -> int:
        return int(self.remote.ask(lambda: self.database.books.head))

    def _ask_store(self, work: Callable[[], Any]) -> Any:
        return self.database.server.call(self, self.link, work, STORE)

    def _breathe(self, longest: float) -> None:
        self.kernel.sleep(self.random.uniform(0.0, longest) if self.random.random() < 0.5 else 0.0, self)


class SimQueueing(Queueing):
    """The real rule by which a node goes back to its ledger, on the simulated queue."""

    def __init__(self, queue: Watched, breaker: LedgerBreaker, monotonic: Callable[[], float], ledger: Remote) -> None:
        self.queue, self._breaker, self._monotonic = queue, breaker, monotonic  # type: ignore[assignment]
        self._ledger = ledger  # type: ignore[assignment]
        self.blocked = False


def _finite(moment: float) -> float | None:
    return moment if math.isfinite(moment) else None
