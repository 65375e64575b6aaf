"""The leader's cull of machines that were silent for too long, on the simulation's own books."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from api.ledger.records import Batch, Change, Event
from api.licensing import ALWAYS, Holding, Machine, Watch
from api.supervisor.duties.watching import WatchRecord
from failover import Identity


def watched(found: WatchRecord | None) -> Watch:
    """As `api.supervisor.duties.watching.watched` reads it."""
    if found is None:
        return ALWAYS
    return Watch(until=found.until) if found.since is None else Watch(found.since, found.until)


def dead_machine(holdings: Sequence[Holding], watch: Watch, now: float) -> tuple[Holding, Machine] | None:
    """A machine that is to be culled, by the rule of `api.supervisor.duties.culls`."""
    for holding in holdings:
        interval = holding.license.policy.machine_heartbeat_s
        if interval is None or not watch.since < (before := min(now, watch.until) - interval):
            continue
        for machine in holding.machines.values():
            if machine.active and machine.heartbeat_at is not None and machine.heartbeat_at < before:
                return holding, machine
    return None


def cull(holding: Holding, machine: Machine, me: Identity, epoch: int, event_id: str, now: float) -> Batch:
    """What the leader of `epoch` commits to free the machine's seat at `now` (ledger time)."""
    freed = replace(machine, active=False, excess=False, heartbeat_at=None, culled=True, seat_at=now)
    machines = {**holding.machines, machine.fingerprint: freed}
    after = replace(holding, machines=machines, seats=holding.seats - 1, excess=holding.excess - int(machine.excess))
    event = Event(
        event_id=event_id,
        type="machine.culled",
        license_id=holding.license.id,
        machine_id=machine.id,
        node=me.node,
        instance=me.instance,
        epoch=epoch,
        mode="normal",
        occurred_at=now,
        data={"fingerprint": machine.fingerprint},
    )
    return Batch([event], [Change(holding, after)], [], [])
