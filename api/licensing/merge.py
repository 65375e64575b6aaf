"""What a call that was answered elsewhere, or earlier, makes of a license as the ledger has it now. Pure.

Each kind of effect merges in a way of its own, so that the order in which nodes replay their queues changes nothing:
a ping and a check-in take the later time, usage adds, activations and deactivations are last-writer-wins for each
machine by ledger time, and an expiry that has started is never shortened. What was granted is kept: a seat or a use
too many is a conflict for the vendor to look at, and no machine loses its seat.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from api.licensing.codes import Act, Code
from api.licensing.decide import Case, absent, leave_seat, never_came, take_seat, with_machine
from api.licensing.model import ALWAYS, MAX_USES, Call, Holding, Machine

#: The kinds of conflict: more seats than there are, more uses than there are.
SEATS, USES = "seats", "uses"

_KEEPS_FROM_CHECKING_IN = frozenset({Code.BANNED, Code.SUSPENDED, Code.EXPIRED})


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was answered at `at` (ledger time). `started`: the expiry that the answer began, if it did.

    `latest`: what no right clock says yet. A machine that came or left beyond it did so by a clock that was set.
    """

    call: Call
    code: Code
    valid: bool
    at: float
    started: float | None = None
    latest: float = float("inf")


class Merged(msgspec.Struct, frozen=True):
    """The license after it, the very object that went in where nothing changed; and what was granted too much."""

    holding: Holding
    conflicts: tuple[str, ...] = ()


def merge(past: Past, holding: Holding) -> Merged:
    """Applies to `holding` what `past` had for an effect. The same once more changes nothing but usage."""
    effect = _EFFECTS.get(past.call.act)
    merged = Merged(holding) if effect is None else effect(past, holding)
    return replace(merged, holding=_started(past, _seen(past, merged.holding)))


def _activate(past: Past, holding: Holding) -> Merged:
    machine = _machine(past, holding)
    if not past.valid or (machine is not None and _moved_at(past, machine) > past.at):
        return Merged(holding)
    return _seat(past, holding, past.at)


def _deactivate(past: Past, holding: Holding) -> Merged:
    machine = _machine(past, holding)
    if machine is not None and _moved_at(past, machine) > past.at:
        return Merged(holding)
    return Merged(_still_beating(past, machine, leave_seat(past.call, holding, past.at)))


def _ping(past: Past, holding: Holding) -> Merged:
    machine = _machine(past, holding)
    if machine is None or not (machine.active or machine.culled):
        return Merged(_beaten_elsewhere(past, holding) if past.valid else holding)
    # It had beaten all along, and the leader that culled it could not know.
    merged = Merged(holding) if machine.active else _seat(past, holding, _moved_at(past, machine))
    machine = _machine(past, merged.holding)
    assert machine is not None
    beaten = replace(machine, heartbeat_at=max(past.at, machine.heartbeat_at or 0.0))
    return replace(merged, holding=with_machine(merged.holding, beaten))


def _beaten_elsewhere(past: Past, holding: Holding) -> Holding:
    """A ping from after the machine left, or before it came: by a call that is still to be replayed it had a seat."""
    known = _machine(past, holding)
    machine = known or absent(past.call, holding)
    if past.at <= max(_moved_at(past, machine), machine.heartbeat_at or 0.0):
        return holding
    beaten = replace(machine, heartbeat_at=past.at)
    return never_came(holding, beaten) if known is None else with_machine(holding, beaten)


def _still_beating(past: Past, before: Machine | None, moved: Holding) -> Holding:
    """A machine that comes or goes begins without a heartbeat; a ping from after that moment is not of before it."""
    after = _machine(past, moved)
    if before is None or after is None or (before.heartbeat_at or 0.0) <= past.at:
        return moved
    return with_machine(moved, replace(after, heartbeat_at=before.heartbeat_at))


def _check_in(past: Past, holding: Holding) -> Merged:
    if not past.valid and past.code in _KEEPS_FROM_CHECKING_IN:
        return Merged(holding)
    license = holding.license
    at = max(past.at, license.checked_in_at or 0.0)
    return Merged(replace(holding, license=replace(license, checked_in_at=at)))


def _usage(past: Past, holding: Holding) -> Merged:
    if not past.valid:
        return Merged(holding)
    uses, limit = holding.license.uses + past.call.increment, holding.license.max_uses
    license = replace(holding.license, uses=min(uses, MAX_USES))
    too_many = uses > (MAX_USES if limit is None else limit)
    return Merged(replace(holding, license=license), (USES,) if too_many else ())


_EFFECTS: dict[Act, Callable[[Past, Holding], Merged]] = {
    Act.ACTIVATE: _activate,
    Act.DEACTIVATE: _deactivate,
    Act.PING: _ping,
    Act.CHECK_IN: _check_in,
    Act.USAGE: _usage,
}


def _seat(past: Past, holding: Holding, seat_at: float) -> Merged:
    """The holding with the machine in a seat since `seat_at`: in one too many where there is none left."""
    case = Case(past.call, holding, past.at, ALWAYS)
    seated = take_seat(case)
    conflicts: tuple[str, ...] = ()
    if seated is None:
        # The limit is what it is now; the seat was given when another node could not know.
        room = replace(holding, license=replace(holding.license, max_machines=None), departed=0)
        seated, conflicts = _in_excess(past, take_seat(case._replace(holding=room)), holding), (SEATS,)
    before, machine = _machine(past, holding), _machine(past, seated)
    assert machine is not None
    seen = max(past.at, (before and before.last_seen_at) or 0.0)
    seated = with_machine(seated, replace(machine, last_seen_at=seen, seat_at=seat_at))
    return Merged(_still_beating(past, before, seated), conflicts)


def _in_excess(past: Past, seated: Holding | None, holding: Holding) -> Holding:
    assert seated is not None
    machine = _machine(past, seated)
    assert machine is not None
    seated = replace(seated, license=holding.license, departed=holding.departed)
    return with_machine(seated, replace(machine, excess=True), excess=1)


def _seen(past: Past, holding: Holding) -> Holding:
    if not past.valid:
        return holding
    license, machine = holding.license, _machine(past, holding)
    if license.last_seen_at is None or license.last_seen_at < past.at:
        holding = replace(holding, license=replace(license, last_seen_at=past.at))
    if machine is not None and (machine.last_seen_at is None or machine.last_seen_at < past.at):
        holding = with_machine(holding, replace(machine, last_seen_at=past.at))
    return holding


def _started(past: Past, holding: Holding) -> Holding:
    license = holding.license
    if past.started is None or (license.expires_at is not None and license.expires_at >= past.started):
        return holding
    return replace(holding, license=replace(license, expires_at=past.started))


def _machine(past: Past, holding: Holding) -> Machine | None:
    return holding.machines.get(past.call.fingerprint or "")


def _moved_at(past: Past, machine: Machine) -> float:
    """When the machine last came or left. A moment still to come is not later than a call that comes after it in the

    log: one hour of a wrong clock would hold a seat for years.
    """
    moved = machine.created_at if machine.seat_at is None else machine.seat_at
    return moved if moved <= past.latest else min(machine.created_at, past.at)
