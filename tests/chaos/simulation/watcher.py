"""The promises, checked after every step on what happened and not on what anybody says of it.

What is touched in a step is what can break in it: events that moved, the lease's row, every node that believes to lead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from api.checks.unit_of_work import Operation, Outcome
from api.ledger.records import Batch
from api.licensing import WRITING_ACTS
from failover import Config
from tests.chaos.simulation.books import Books, Effect
from tests.chaos.simulation.database import Database
from tests.chaos.simulation.disk import Disk
from tests.chaos.simulation.kernel import Kernel, Owner, Violation
from tests.chaos.simulation.network import STORE
from tests.chaos.simulation.process import Process
from tests.chaos.simulation.truth import Truth


@dataclass
class Intake:
    """One try of one call at one node. `answered_at`: None until its verdict left."""

    received_at: float
    writes: bool
    answered_at: float | None = None


@dataclass
class Watcher:
    """Told by everything what it does; raises `Violation`."""

    kernel: Kernel
    database: Database
    processes: Callable[[], list[Process]]
    config: Config
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        database = self.database
        in_ledger = lambda event_id: event_id in database.books.place  # noqa: E731 - a question
        self.truth = Truth(self.kernel, database.clock, database.books, self.is_lost, in_ledger)
        self.answers: dict[str, Outcome] = {}
        self.lost_with_disk: set[str] = set()
        self.lost_by_restore: set[str] = set()
        #: What was in a state of the ledger that an older one replaced; its only copy, or not.
        self._rolled_back: set[str] = set()
        self._queued: Counter[str] = Counter()
        self._dirty: set[str] = set()
        self._intakes: dict[tuple[str, str], Intake] = {}
        self._logged: defaultdict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        self._origins: dict[tuple[str, str], int] = {}
        self._row: tuple[str, int] | None = None
        self._holders: dict[tuple[int, int], Owner] = {}
        self._resigned: list[Owner] = []
        #: When the lease was last taken, renewed or moved, in true time: the ledger's clock may be set.
        self._renewed_at = 0.0
        #: When each process ended that did, by instance.
        self._ended: dict[str, float] = {}
        self._led: defaultdict[str, int] = defaultdict(int)
        #: Leases that were taken from outside: by an admin, or with the ledger's restore.
        self._taken: set[tuple[str, int]] = set()

    def is_lost(self, event_id: str) -> bool:
        """Whether it is one of those that nothing could have kept."""
        return event_id in self.lost_with_disk or event_id in self.lost_by_restore

    def count(self, what: str) -> None:
        """One more of it, for the tally."""
        self.counts[what] += 1

    def tally(self) -> Counter[str]:
        """What happened, by name."""
        lost = Counter({"lost with a disk": len(self.lost_with_disk & self.answers.keys())})
        lost["lost by a restore"] = len(self.lost_by_restore & self.answers.keys())
        lost["conflicts kept"] = len(self.database.books.findings)
        return self.counts + lost

    def after_step(self) -> None:
        """What must hold now, whatever the step was."""
        for event_id in self._dirty:
            self._is_somewhere(event_id)
        self._dirty.clear()
        leaders = [p for p in self.processes() if p.alive and not p.paused and p.supervisor.is_leader()]
        for process in leaders:
            self._leads_rightly(process)

    # -- the lease ----------------------------------------------------------------------------------------------------

    def lease_changed(self, owner: Owner, how: str) -> None:
        """`how`: what was done to the row with success; empty: without."""
        lease = self.database.tables.leases.watch()
        if lease is None:
            if self._row is not None:
                raise Violation("epochs rise", "the lease's row is gone, and the epoch begins again")
            return
        row, before = (lease.holder.instance, lease.epoch), self._row
        self._row = row
        if before is not None and row != before and row[1] <= before[1]:
            raise Violation("epochs rise", f"{before} was followed by {row}")
        if how == "hand_over" and before:
            self._taken.add(before)  # an admin's doing: the process that held it cannot know yet
        if how == "acquire" and isinstance(owner, Process) and before and self._knows_only_the_clock(owner):
            self._taken.add(before)
        if how == "fail_back":
            self._goes_to_the_living(lease.holder.instance)
        if how in ("acquire", "renew", "hand_over", "fail_back"):
            self._renewed_at = self.kernel.now
        if how in ("acquire", "renew"):
            self._holds(owner, lease.epoch)
        if how == "resign":
            self._resigned.append(owner)
        elif how in ("acquire", "renew") and owner in self._resigned:
            raise Violation("who resigned does not come back", f"{_name(owner)} took epoch {lease.epoch}")
        if row != before:
            self.count("changes of the lease")
            self.kernel.say(f"the lease is {lease.holder.node}/{row[0][:4]}'s with epoch {row[1]} ({how})")

    def _knows_only_the_clock(self, newcomer: Process) -> bool:
        """Whether it never saw the lease change, and the clock was set before it came: the fence is all there is."""
        return self._renewed_at < newcomer.watches_since and self._renewed_at < self.database.clock.set_at

    def _goes_to_the_living(self, instance: str) -> None:
        """A backup hands the lease to a primary that it has heard of within the time-out."""
        longest = self.config.heartbeat_timeout + self.config.heartbeat_interval + STORE.timeout
        ended_at = self._ended.get(instance, self.kernel.now)
        if self.kernel.now - ended_at > longest:
            dead_s = self.kernel.now - ended_at
            raise Violation("the lease goes to the living", f"{instance} has been dead for {dead_s:.1f} s")

    def ended(self, process: Process) -> None:
        """It is no more."""
        self._ended[process.me.instance] = self.kernel.now

    def _holds(self, owner: Owner, epoch: int) -> None:
        holder = self._holders.setdefault((self.database.incarnation, epoch), owner)
        if holder is not owner:
            raise Violation("one holder per epoch", f"epoch {epoch} is {_name(holder)}'s and {_name(owner)}'s")

    def _leads_rightly(self, process: Process) -> None:
        epoch = process.supervisor.elector.trust.epoch or 0
        mine = (process.me.instance, epoch)
        if epoch < self._led[process.disk.name]:
            led = self._led[process.disk.name]
            raise Violation("no epoch is used again", f"{process.name} led epoch {led} and leads epoch {epoch}")
        self._led[process.disk.name] = epoch
        if mine in self._taken:
            return
        lease = self.database.tables.leases.watch()
        is_over = self.kernel.now > self._renewed_at + self.config.heartbeat_timeout
        if lease is None or (lease.holder.instance, lease.epoch) != mine or is_over:
            raise Violation("who believes to lead does", f"{process.name} believes in epoch {epoch}, and has {lease}")
        holder = self._holders.get((self.database.incarnation, epoch))
        if holder is not None and holder is not process:
            raise Violation("one leader", f"{process.name} and {_name(holder)} lead epoch {epoch}")

    def effect(self, owner: Owner, effect: Effect) -> None:
        """A leader-only transaction is being committed."""
        lease = self.database.tables.leases.watch()
        if lease is None or (lease.holder.instance, lease.epoch) != (effect.instance, effect.epoch):
            raise Violation("no stale leader's effect commits", f"{_name(owner)}'s of epoch {effect.epoch}: {lease}")
        self._holds(owner, effect.epoch)
        self.count("effects of leaders")

    # -- the events ---------------------------------------------------------------------------------------------------

    def received(self, process: Process, operation: Operation) -> None:
        """A call came to a node."""
        intake = Intake(self.kernel.now, operation.call.act in WRITING_ACTS)
        self._intakes.setdefault((process.disk.name, operation.event_id), intake)
        self.kernel.say(f"{process.name} is asked {operation.nonce} ({operation.call.act} of {operation.key_hash})")

    def answered(self, process: Process, operation: Operation, outcome: Outcome) -> None:
        """A verdict leaves a node."""
        verdict, event_id = outcome.verdict, outcome.event_id
        self.kernel.say(f"{process.name} answers {operation.nonce}: {verdict.code}, {outcome.durability}")
        self.count(f"answered from the {outcome.durability}")
        self.count("denied" if not verdict.valid else "valid")
        intake = self._intakes[process.disk.name, operation.event_id]
        self.truth.judge(operation, outcome, intake.received_at)
        if intake.answered_at is None:
            intake.answered_at = self.kernel.now
        if verdict.holding is not None:
            self.answers[event_id] = outcome
            in_ledger = event_id in self.database.books.place or event_id in self._rolled_back
            if outcome.durability == "ledger" and not in_ledger:
                raise Violation("an answer follows its event", f"{event_id} is not in the ledger")
            if outcome.durability == "queue" and event_id not in process.disk.waiting.values() and not in_ledger:
                raise Violation("an answer follows its event", f"{event_id} is not in {process.name}'s queue")
            self.moved(event_id)

    def moved(self, event_id: str) -> None:
        """An event came to a place or left one."""
        self._dirty.add(event_id)

    def queued(self, event_id: str, change: int) -> None:
        """It came to a queue, or left one."""
        self._queued[event_id] += change
        self._dirty.add(event_id)

    def _is_somewhere(self, event_id: str) -> None:
        if event_id not in self.answers or event_id in self.database.books.place or self._queued[event_id] > 0:
            return
        if self.is_lost(event_id):
            return
        if event_id in self._rolled_back:
            self.lost_by_restore.add(event_id)
            return
        raise Violation("nothing answered is lost", f"{event_id} is in no queue and not in the ledger")

    def committed(self, owner: Owner, batch: Batch) -> None:
        """Events came to the log."""
        books = self.database.books
        for event in batch.events:
            self.moved(event.event_id)
            if event.origin is not None:
                self._in_order_of_origin(event.origin, event.license_id or "", event.origin_seq or 0)
            if isinstance(owner, Process):
                self._in_order_of_answers(owner.disk.name, event.event_id, event.license_id or "")
        if len(books.place) != len(books.log):
            raise Violation("once in the ledger", "an event is in the log twice")
        changed = [change.after.license.id for change in batch.changes]
        self.truth.rows({id: books.licenses[id] for id in changed}, self.database.incarnation)
        self.truth.committed(batch)

    def _in_order_of_origin(self, origin: str, license_id: str, place: int) -> None:
        if self._origins.get((origin, license_id), 0) >= place:
            raise Violation("in order per origin", f"place {place} of {origin} after a later one of {license_id}")
        self._origins[origin, license_id] = place

    def _in_order_of_answers(self, disk: str, event_id: str, license_id: str) -> None:
        """What was answered before another call came in to the same node stands before it in the log."""
        intake = self._intakes.get((disk, event_id))
        if intake is None or not intake.writes:
            return
        logged = self._logged[disk, license_id]
        newest, which = max(logged, default=(float("-inf"), ""))
        if intake.answered_at is not None and newest > intake.answered_at:
            raise Violation("in order per origin", f"{event_id} was overtaken by {which}, which came after its answer")
        logged.append((intake.received_at, event_id))

    def followed(self, process: Process) -> None:
        """A node's copy was brought up to where the ledger is."""
        copy = process.disk.snapshot
        assert copy is not None
        wrong = self.truth.is_a_true_copy(copy, self.database.incarnation)
        if wrong is not None:
            raise Violation("followers notice another ledger", f"{process.name} has {wrong} that the ledger never had")

    def vanished(self, disk: Disk) -> None:
        """A disk is gone, and with it what was nowhere else."""
        for event_id in disk.waiting.values():
            self.queued(event_id, -1)
            if self._queued[event_id] <= 0 and event_id not in self.database.books.place:
                self.lost_with_disk.add(event_id)
        disk.waiting.clear()

    def restored(self, before: Books, after: Books) -> None:
        """An older copy took the ledger's place."""
        if self._row is not None:
            self._taken.add(self._row)
        lease = self.database.tables.leases.watch()
        self._row = None if lease is None else (lease.holder.instance, lease.epoch)
        for event_id in before.place:
            if event_id not in after.place:
                self._rolled_back.add(event_id)
                self.moved(event_id)
        for key, logged in self._logged.items():
            self._logged[key] = [one for one in logged if one[1] in after.place]
        self._origins = {
            (event.origin, event.license_id or ""): event.origin_seq or 0 for event in after.log if event.origin
        }
        self.truth.restored(after, self.database.incarnation)


def _name(owner: Owner) -> str:
    return owner.name if isinstance(owner, Process) else "an admin"
