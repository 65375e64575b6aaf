"""What may happen to the cluster, by name. Everything ends by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from api.ledger.errors import LedgerError
from api.ledger.records import Batch, Change, Event
from api.licensing import Act, Call
from failover.model import Identity, Kind
from tests.chaos.simulation.database import NoMore, NoRight
from tests.chaos.simulation.disk import Machine
from tests.chaos.simulation.kernel import Owner
from tests.chaos.simulation.scenario import Item
from tests.chaos.simulation.stores import RemoteLeases

if TYPE_CHECKING:
    from tests.chaos.simulation.process import Process
    from tests.chaos.simulation.world import Site, World

#: What is asked of every license when all is well again.
LAST_CALL = Call(act=Act.VALIDATE)
#: How long a process that was told to stop goes on answering, and how long it may deliver before it is killed.
_DRAIN_S, _DELIVER_S = 0.8, 0.7
_STATUS = {"ban": "banned", "suspend": "suspended", "reinstate": "active"}


def _site(world: World, item: Item) -> tuple[Site, Process | None]:
    site = world.sites[item.node - 1]
    return site, site.processes[-1] if site.processes else None


def _crash(world: World, item: Item, lasts: float) -> None:
    site, process = _site(world, item)
    if process is not None:
        world.kill(site, process)
        world.kernel.at(lasts, lambda: _start(world, site))


def _start(world: World, site: Site) -> None:
    if not site.processes:
        world.start(site)


def _vanish(world: World, item: Item, lasts: float) -> None:
    site, _ = _site(world, item)
    for process in list(site.processes):
        world.kill(site, process)
        world.vanish(process.disk)
    world.vanish(site.disk)
    site.disk = world.new_disk(site.number)
    world.kernel.at(lasts, lambda: _start(world, site))


def _pause(world: World, item: Item, lasts: float) -> None:
    _, process = _site(world, item)
    if process is not None and not process.paused:
        process.paused = True
        world.kernel.at(lasts, lambda: world.kernel.resume(process))


def _cut(out: bool, back: bool) -> Happening:
    def cut(world: World, item: Item, lasts: float) -> None:
        _, process = _site(world, item)
        if process is not None:
            link = process.link
            link.out_cut, link.back_cut = link.out_cut or out, link.back_cut or back
            world.kernel.at(lasts, lambda: world.database.server.mend(link))

    return cut


def _terminate(world: World, item: Item, lasts: float) -> None:
    """Of the leader where there is one: others have nothing to resign."""
    site, process = _site(world, item)
    for one in world.sites:
        if one.processes and one.processes[-1].supervisor.is_leader():
            site, process = one, one.processes[-1]
    if process is not None:
        if int(item.at * 1000) % 2:
            process.supervisor.ask_to_stop()
        else:
            process.supervisor.stops_in_a_round = True
        world.kernel.at(_DRAIN_S, lambda: process.once(process.finish))
        world.kernel.at(_DRAIN_S + _DELIVER_S, lambda: world.kill(site, process))
        world.kernel.at(_DRAIN_S + _DELIVER_S + lasts, lambda: _start(world, site))


def _deploy(world: World, item: Item, lasts: float) -> None:
    """Two copies of one node at once, the new one on a disk of its own."""
    site, process = _site(world, item)
    if process is None or len(site.processes) > 1:
        return
    old, site.disk = site.disk, world.new_disk(site.number)
    world.start(site)
    world.kernel.at(lasts, process.supervisor.ask_to_stop)

    def end() -> None:
        world.kill(site, process)
        world.vanish(old)

    world.kernel.at(lasts + _DRAIN_S, lambda: process.once(process.finish))
    world.kernel.at(lasts + _DRAIN_S + _DELIVER_S, end)


def _supervisor_dies(world: World, item: Item, lasts: float) -> None:
    _, process = _site(world, item)
    if process is not None and not process.paused and not process.supervisor.stops:
        process.restart_supervisor()


def _database_stops(world: World, item: Item, lasts: float) -> None:
    world.outages += 1
    world.database.stop()
    world.kernel.at(lasts, lambda: _database_returns(world))


def _database_freezes(world: World, item: Item, lasts: float) -> None:
    world.outages += 1
    world.database.freeze()
    world.kernel.at(lasts, lambda: _database_returns(world))


def _database_returns(world: World) -> None:
    world.outages -= 1
    if not world.outages:
        world.kernel.say("--- the database is back")
        world.database.start(overdue_first=world.random.random() < 0.5)


def _database_restored(world: World, item: Item, lasts: float) -> None:
    """It stops, and what comes back is a backup, of just before or of long ago."""
    if not world.backups:
        return
    _database_stops(world, item, lasts)
    backup = world.backups[int(item.at * 1000) % len(world.backups)]
    world.database.restore(backup, says_so=lasts < 1.0)
    world.kernel.say(f"    the ledger has {world.database.books.head} events again")


def _refused(kind: type[LedgerError]) -> Happening:
    """An operator's mistake: the ledger is there and refuses everybody, until it is undone."""

    def refuse(world: World, item: Item, lasts: float) -> None:
        refusals = world.database.refusals
        refusals.append(kind)
        world.kernel.at(lasts, lambda: refusals.remove(kind))

    return refuse


def _switch_over(world: World, item: Item, lasts: float) -> None:
    """An admin's, as `api.stats.cluster.hand_to`: asked of the process that leads."""
    _, to = _site(world, item)
    for process in world.processes():
        if to is not None and process is not to and process.supervisor.is_leader() and not process.paused:
            process.once(_move_lease(world, process, to.me))


def _promote(world: World, item: Item, lasts: float) -> None:
    """The same, asked of the process that is to lead; it takes a lease that nobody holds as well."""
    _, process = _site(world, item)
    if process is not None and not process.supervisor.stops:
        process.once(_move_lease(world, process, process.me))


def _move_lease(world: World, asked: Process, to: Identity) -> Callable[[], None]:
    leases, timeout = RemoteLeases(world.database, asked, asked.link), asked.config.heartbeat_timeout

    def move() -> None:
        held = leases.watch()
        if held is not None and held.expires_in >= 0:
            leases.hand_over(held, to, timeout, Kind.SWITCHOVER)
        elif to == asked.me:
            leases.acquire(to, timeout, asked.supervisor.elector.epoch_seen)

    return move


def _beats_emptied(world: World, item: Item, lasts: float) -> None:
    if world.database.server.mode == "up":
        heartbeats = world.database.tables.heartbeats
        heartbeats.forget(heartbeats.read())
        world.watcher.truth.nodes_forgotten = True


def _ledger_clock(world: World, item: Item, lasts: float) -> None:
    """Somebody sets it; where that lasts, it is put right again."""
    _set_ledger_clock(world, item.by)
    if item.lasts:
        world.kernel.at(lasts, lambda: _set_ledger_clock(world, -item.by))


def _set_ledger_clock(world: World, by: float) -> None:
    world.database.clock.set(by)
    world.kernel.say(f"    the ledger's clock is {world.database.clock.offsets[-1]:+.2f} s off")


def _wall_clock(world: World, item: Item, lasts: float) -> None:
    """The one of a node's machine, which nobody goes by but a process that starts without the ledger."""
    machine = world.sites[item.node - 1].disk.machine
    machine.wall_off += item.by
    if item.lasts:
        world.kernel.at(lasts, lambda: _put_back(machine, item.by))


def _put_back(machine: Machine, by: float) -> None:
    machine.wall_off -= by


def _admin(world: World, item: Item, lasts: float) -> None:
    """A change of a license's status, in the ledger."""
    database, books = world.database, world.database.books
    id = books.by_key[item.key]
    if database.server.mode != "up" or database.refusals or any(id in one.licenses for one in database.open):
        return
    before = books.licenses[id].holding
    assert before is not None
    if before.license.status == "banned":
        return
    after = replace(before, license=replace(before.license, status=_STATUS[item.kind]))
    event = Event(
        event_id=f"admin-{item.number}-{database.incarnation}",
        type=f"license.{item.kind}",
        license_id=id,
        node="admin",
        instance="admin",
        epoch=0,
        mode="normal",
        occurred_at=database.now(),
        data={},
    )
    database.append(Owner(), Batch([event], [Change(before, after)], [], []))


Happening = Callable[["World", Item, float], None]
HAPPENINGS: dict[str, Happening] = {
    "crash": _crash,
    "vanish": _vanish,
    "pause": _pause,
    "cut out": _cut(True, False),
    "cut back": _cut(False, True),
    "cut off": _cut(True, True),
    "terminate": _terminate,
    "deploy": _deploy,
    "supervisor dies": _supervisor_dies,
    "database stops": _database_stops,
    "database freezes": _database_freezes,
    "database restored": _database_restored,
    "table revoked": _refused(NoRight),
    "rule added": _refused(NoMore),
    "switch over": _switch_over,
    "promote": _promote,
    "beats emptied": _beats_emptied,
    "ledger clock": _ledger_clock,
    "wall clock": _wall_clock,
    "ban": _admin,
    "suspend": _admin,
    "reinstate": _admin,
}
