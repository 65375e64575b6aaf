"""A run: the cluster is built, the scenario happens to it, everything is healed, and the end is looked at."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from api.checks import recorder
from api.supervisor.duties.watching import WatchRecord
from failover import Identity
from tests.chaos.simulation import faults
from tests.chaos.simulation.books import Books, Row
from tests.chaos.simulation.clients import Client
from tests.chaos.simulation.database import Backup, Database, Observer
from tests.chaos.simulation.disk import EPOCH, Disk, Machine
from tests.chaos.simulation.kernel import Kernel, Owner, Violation
from tests.chaos.simulation.ledger_clock import LedgerClock
from tests.chaos.simulation.process import Process
from tests.chaos.simulation.reference import differences
from tests.chaos.simulation.scenario import TURMOIL_S, Item, Scenario, licenses
from tests.chaos.simulation.stores import MemoryTables, SqlTables, Tables
from tests.chaos.simulation.watcher import Watcher

_BACKUP_EVERY_S = 2.5
_CALM_S = 3.0


@dataclass
class Site:
    """Where a node runs: its disk, and its processes (two during a deploy; none while it is down)."""

    number: int
    disk: Disk
    processes: list[Process]


class World:
    """One run of `scenario`, with its files below `scratch`."""

    def __init__(self, scenario: Scenario, scratch: Path, keep_trace: bool = False) -> None:
        self.scenario, self.scratch = scenario, scratch
        self.kernel = Kernel(keep_trace)
        self.random = random.Random(f"{scenario.seed}/world")
        clock = LedgerClock(lambda: self.kernel.now)
        tables: Tables = SqlTables(clock.now) if scenario.sql else MemoryTables(clock.now)
        self.database = Database(self.kernel, clock, tables, _books())
        self.watcher = Watcher(self.kernel, self.database, self.processes, scenario.config)
        watcher = self.watcher
        self.database.observer = Observer(watcher.lease_changed, watcher.committed, watcher.effect, watcher.restored)
        self.backups: list[Backup] = []
        self.outages = 0
        self._made = Counter[str]()
        self.sites = [Site(number, self.new_disk(number), []) for number in range(1, scenario.nodes + 1)]

    def processes(self) -> list[Process]:
        """All that are alive."""
        return [process for site in getattr(self, "sites", ()) for process in site.processes]

    def run(self) -> None:
        """The whole scenario. Raises `Violation`."""
        with _deterministic(self):
            try:
                self._run()
            finally:
                for process in self.processes():
                    self.kernel.kill(process)

    def _run(self) -> None:
        for site in self.sites:
            self.start(site)
        self._keep_backups()
        for item in self.scenario.items:
            self.kernel.at(item.at, partial(self._happen, item))
        self.kernel.at(TURMOIL_S, self._heal)
        self.kernel.run(TURMOIL_S + self.scenario.settle_s, self.watcher.after_step)
        self._is_well()
        for number, key in enumerate(licenses()):
            self._call(Item(0.0, "call", 1 + number % len(self.sites), 0.0, faults.LAST_CALL, key, 5000 + number))
        self.kernel.run(TURMOIL_S + self.scenario.settle_s + _CALM_S, self._after_calm_step)
        self._is_well()
        if self.watcher.counts["unserved at last"]:
            raise Violation("everybody is served in the end", "a call was not")

    # -- the cluster --------------------------------------------------------------------------------------------------

    def new_disk(self, number: int) -> Disk:
        """A disk with nothing on it, in a machine whose clocks are its own."""
        self._made["disks"] += 1
        name = f"node{number}-disk{self._made['disks']}"
        folder = self.scratch / name if self.scenario.files else None
        if folder is not None:
            folder.mkdir(parents=True)
        source = self.random
        rate = 1.0 + source.uniform(-2e-4, 2e-4)
        off = source.choice((0.0, 0.0, -3600.0, 3600.0))
        if self.scenario.sets_the_ledgers_clock:
            off = 0.0  # one clock that is wrong at a time: with two, a node that has just been made has no third
        machine = Machine(lambda: self.kernel.now, source.uniform(10.0, 1e5), rate, off)
        return Disk(name, machine, folder, self.watcher.queued)

    def start(self, site: Site) -> Process:
        """A new process of this node."""
        self._made[str(site.number)] += 1
        seed = f"{self.scenario.seed}/{site.number}/{self._made[str(site.number)]}"
        identity = Identity.new(f"n{site.number}", site.number)
        process = Process(
            self.kernel, self.database, self.scenario, identity, site.disk, self.scratch, seed, self.watcher.followed
        )
        site.processes.append(process)
        self.kernel.say(f"{process.name} starts on {site.disk.name}")
        process.start()
        return process

    def kill(self, site: Site, process: Process) -> None:
        """It is gone at once, and its connections a moment later, if the server hears of it."""
        if process not in site.processes:
            return
        self.kernel.say(f"{process.name} ends")
        self.kernel.kill(process)
        self.watcher.ended(process)
        site.processes.remove(process)
        process.queue.close()
        if not process.link.out_cut:
            for transaction in [one for one in self.database.open if one.owner is process]:
                self.kernel.at(process.link.delay(), partial(self.database.end, transaction))

    def vanish(self, disk: Disk) -> None:
        """The disk is gone."""
        if disk.vanished:
            return
        disk.vanished = True
        self.kernel.say(f"{disk.name} vanishes with {len(disk.waiting)} events")
        self.watcher.vanished(disk)

    def listen(self, number: int) -> Process | None:
        """Who takes a client's call at this node."""
        open_ones = [process for process in self.sites[number - 1].processes if not process.closed]
        return open_ones[-1] if open_ones else None

    # -- what happens -------------------------------------------------------------------------------------------------

    def _happen(self, item: Item) -> None:
        if item.kind == "call":
            self._call(item)
            return
        self.kernel.say(f"--- {item}")
        self.watcher.count("faults")
        faults.HAPPENINGS[item.kind](self, item, min(item.lasts, max(0.05, TURMOIL_S - item.at)))

    def _call(self, item: Item) -> None:
        client = Client(self.kernel, item, self.scenario.seed, self.listen, self.watcher)
        self.kernel.spawn(client, lambda: client.walk(len(self.sites)))

    def _keep_backups(self) -> None:
        self.backups.append(self.database.backup())
        if self.kernel.now < TURMOIL_S:
            self.kernel.at(_BACKUP_EVERY_S, self._keep_backups)

    def _heal(self) -> None:
        """By now every fault has ended by itself, but for nodes that are still to be started, and clocks.

        Of two clocks that differ for ever, only an operator knows which is right: here it is the ledger's that was set.
        """
        self.kernel.say("--- everything is healed")
        if self.database.clock.offsets[-1]:
            self.database.clock.set(-self.database.clock.offsets[-1])
        self.kernel.at(2.0, self._calm)

    def _calm(self) -> None:
        for site in self.sites:
            if not site.processes:
                self.start(site)
        for process in self.processes():
            process.link.calm = True
            self.database.server.mend(process.link)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _after_calm_step(self) -> None:
        self.watcher.after_step()
        if not any(process.supervisor.is_leader() for process in self.processes()):
            raise Violation("nobody loses the lease for nothing", "nobody leads, though nothing is wrong")

    def _is_well(self) -> None:
        books = self.database.books
        leaders = [process for process in self.processes() if process.supervisor.is_leader()]
        if [process.me.rank for process in leaders] != [1]:
            states = {process.name: process.supervisor.state.value for process in self.processes()}
            raise Violation("the primary leads in the end", f"{[p.name for p in leaders]} of {states}")
        for process in self.processes():
            if process.queue.stats().pending:
                raise Violation("every queue is replayed in the end", process.name)
            if process.state.breaker.isolated_since is not None:
                raise Violation("nobody stays cut off", process.name)
            self._is_the_ledger(process)
        for event_id in self.watcher.answers:
            if event_id not in books.place and not self.watcher.is_lost(event_id):
                raise Violation("nothing answered is lost", f"{event_id} is not in the ledger in the end")
        for difference in differences(books, in_order_of_time=not self.database.clock.was_set):
            raise Violation("merged as designed", difference)

    def _is_the_ledger(self, process: Process) -> None:
        copy = process.disk.snapshot
        for id, row in self.database.books.licenses.items():
            held = None if copy is None else copy.rows.get(id)
            if held is None or held.holding != row.holding:
                raise Violation("a copy is the ledger in the end", f"{process.name}: {held}, and the ledger has {row}")


def _books() -> Books:
    # Some leader has looked before: of a ledger that nobody ever watched, every silence counts.
    books = Books(ledger_id="ledger", watch=WatchRecord(None, EPOCH, EPOCH))
    for key, holding in licenses().items():
        books.by_key[key] = holding.license.id
        books.licenses[holding.license.id] = Row(holding, 0)
    return books


@contextlib.contextmanager
def _deterministic(world: World) -> Iterator[None]:
    """What the code under test draws or sleeps comes from the seed and passes in virtual time."""
    source = random.Random(f"{world.scenario.seed}/ids")

    def sleep(seconds: float) -> None:
        world.kernel.sleep(seconds, Owner())

    def new_uuid() -> uuid.UUID:
        return uuid.UUID(int=source.getrandbits(128), version=4)

    draws: Any = SimpleNamespace(uniform=source.uniform)
    sleeps: Any = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    with (
        mock.patch.object(uuid, "uuid4", new_uuid),
        mock.patch.object(recorder, "random", draws),
        mock.patch.object(recorder, "time", sleeps),
    ):
        yield
