"""The one decision: a call, what is known of the license, and the time, to a verdict. Pure.

Each rule looks at one cause and gives a finding or nothing; the first finding in the order of precedence
(`codes.Code`) is the verdict. An act first takes the effect that it would have, then asks its rules about the
result; where a rule refuses, the effect is dropped. A heartbeat and a check-in are facts, not favours: those stay,
or a machine that beat through its license's overdue hours would be dead when they end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from msgspec.structs import replace
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from api.licensing.codes import Act, Code
from api.licensing.model import (
    ALWAYS,
    DAY,
    MAX_USES,
    MOST_DEPARTED,
    MOST_NEVER_CAME,
    Call,
    Holding,
    License,
    Machine,
    Verdict,
    Watch,
    machine_id,
)


class Finding(NamedTuple):
    code: Code
    valid: bool
    detail: str


class Case(NamedTuple):
    """What a rule looks at."""

    call: Call
    holding: Holding
    now: float
    watch: Watch

    @property
    def license(self) -> License:
        return self.holding.license

    def silent_s(self, heard_at: float) -> float:
        """The seconds of silence since `heard_at` that count."""
        return min(self.now, self.watch.until) - max(heard_at, self.watch.since)


Rule = Callable[[Case], Finding | None]


def decide(call: Call, holding: Holding | None, now: float, *, watch: Watch = ALWAYS) -> Verdict:
    """Judges `call` at `now` (Unix seconds, ledger time). Gives the verdict with the state after it."""
    if holding is None:
        return Verdict(code=Code.NOT_FOUND, valid=False, detail="does not exist")
    verdict = _ACTS[call.act](Case(call, holding, now, watch))
    if verdict.valid:
        verdict = _start_expiry(call, verdict, now)
    return verdict


def retried(call: Call, holding: Holding, first: Verdict, first_at: float, now: float) -> tuple[Verdict, float]:
    """The outcome of a retry: the `first` one, unless today's state denies it.

    That is so where the license has since been banned, suspended or expired, and where a machine that was activated
    holds no seat any more: else one request id, sent again by a relay, would seat any number of machines in turn.
    Nothing is done again. A deactivation is never judged by the license's state, so neither is its retry. The second
    value is the moment that justifies the verdict: a denial of `first_at` may by now have lost its cause.
    """
    case = Case(call, holding, now, ALWAYS)
    if call.act is not Act.DEACTIVATE:
        seated = call.act is Act.ACTIVATE and first.valid
        finding = _first((_banned, _suspended, _expired, *((_machine_scope,) if seated else ())), case)
        if finding is not None:
            return _verdict(case, finding), now
    return _verdict(case, Finding(first.code, first.valid, first.detail)), now if first.valid else first_at


# -- the acts ---------------------------------------------------------------------------------------------------


def _check(case: Case) -> Verdict:
    return _verdict(case, _first(_LIFECYCLE + _SCOPE + _MACHINE + _LIMITS, case))


def _activate(case: Case) -> Verdict:
    finding = _first(_LIFECYCLE + _SCOPE, case)
    if finding is not None:
        return _verdict(case, finding)
    seated = take_seat(case)
    if seated is None:
        return _verdict(case, Finding(Code.MACHINE_LIMIT_EXCEEDED, False, "has no seat left for another machine"))
    after = case._replace(holding=seated)
    finding = _first((_seats_of_the_seated, _uses, _grace), after)
    return _verdict(after if finding is None or finding.valid else case, finding)


def _deactivate(case: Case) -> Verdict:
    case = case._replace(holding=leave_seat(case.call, case.holding, case.now))
    return _verdict(case, Finding(Code.VALID, True, "machine is deactivated"))


def _ping(case: Case) -> Verdict:
    machine = case.holding.active(case.call.fingerprint)
    if machine is not None:
        beaten = replace(machine, heartbeat_at=max(case.now, machine.heartbeat_at or 0.0), last_seen_at=case.now)
        case = case._replace(holding=with_machine(case.holding, beaten))
    return _check(case)


def _check_in(case: Case) -> Verdict:
    if _first((_banned, _suspended, _expired), case) is None:
        at = max(case.now, case.license.checked_in_at or 0.0)
        case = case._replace(holding=replace(case.holding, license=replace(case.license, checked_in_at=at)))
    return _verdict(case, _first(_LIFECYCLE + _LIMITS, case))


def _usage(case: Case) -> Verdict:
    finding = _first(_LIFECYCLE, case)
    if finding is not None:
        return _verdict(case, finding)
    license, uses = case.license, case.license.uses + case.call.increment
    if uses > (MAX_USES if license.max_uses is None else license.max_uses):
        return _verdict(case, Finding(Code.USES_EXHAUSTED, False, "has no uses left for that"))
    counted = case._replace(holding=replace(case.holding, license=replace(license, uses=uses)))
    return _verdict(counted, _grace(counted))


# -- the rules, in order of precedence --------------------------------------------------------------------------


def _banned(case: Case) -> Finding | None:
    return Finding(Code.BANNED, False, "is banned") if case.license.status == "banned" else None


def _suspended(case: Case) -> Finding | None:
    return Finding(Code.SUSPENDED, False, "is suspended") if case.license.status == "suspended" else None


def _expired(case: Case) -> Finding | None:
    until = case.license.valid_until
    return Finding(Code.EXPIRED, False, "is expired") if until is not None and case.now >= until else None


def _overdue(case: Case) -> Finding | None:
    interval = case.license.check_in_s
    if interval is None or case.silent_s(case.license.last_check_in_at) < interval:
        return None
    return Finding(Code.OVERDUE, False, "is overdue for check-in")


def _product(case: Case) -> Finding | None:
    if case.call.product is None or case.call.product == case.license.policy.product:
        return None
    return Finding(Code.PRODUCT_SCOPE_MISMATCH, False, "is for another product")


def _version(case: Case) -> Finding | None:
    allowed = case.license.policy.versions
    if case.call.version is None or allowed is None or _version_matches(case.call.version, allowed):
        return None
    return Finding(Code.VERSION_SCOPE_MISMATCH, False, "does not cover this version")


def _entitlements(case: Case) -> Finding | None:
    missing = set(case.call.entitlements) - set(case.license.entitlements)
    return Finding(Code.ENTITLEMENTS_MISSING, False, "lacks an entitlement") if missing else None


def _fingerprint_required(case: Case) -> Finding | None:
    if case.call.fingerprint is not None or not case.license.policy.require_fingerprint:
        return None
    return Finding(Code.FINGERPRINT_SCOPE_REQUIRED, False, "needs the machine's fingerprint")


def _machine_scope(case: Case) -> Finding | None:
    if case.call.fingerprint is None or case.holding.active(case.call.fingerprint) is not None:
        return None
    if case.holding.seats > 0:
        return Finding(Code.FINGERPRINT_SCOPE_MISMATCH, False, "is not activated on this machine")
    code = Code.NO_MACHINES if case.license.policy.floating else Code.NO_MACHINE
    return Finding(code, False, "is not activated on any machine")


def _heartbeat(case: Case) -> Finding | None:
    interval = case.license.policy.machine_heartbeat_s
    machine = case.holding.active(case.call.fingerprint)
    if interval is None or machine is None:
        return None
    if machine.heartbeat_at is None:
        return Finding(Code.HEARTBEAT_NOT_STARTED, False, "machine has not started its heartbeat")
    if case.silent_s(machine.heartbeat_at) > interval:
        return Finding(Code.HEARTBEAT_DEAD, False, "machine heartbeat is dead")
    return None


def _seats(case: Case) -> Finding | None:
    limit, seats = case.license.max_machines, case.holding.seats - case.holding.excess
    if limit is None or seats <= limit:
        return None
    return Finding(Code.TOO_MANY_MACHINES, seats <= case.license.seat_limit, "has more machines than seats")


def _seats_of_the_seated(case: Case) -> Finding | None:
    # A seat within the limit of its day stays: where the limit was lowered since, the same machine again is no error.
    finding = _seats(case)
    return None if finding is None else finding._replace(valid=True)


def _uses(case: Case) -> Finding | None:
    limit = case.license.max_uses
    return (
        Finding(Code.USES_EXHAUSTED, False, "has no uses left")
        if limit is not None and case.license.uses >= limit
        else None
    )


def _grace(case: Case) -> Finding | None:
    expires = case.license.expires_at
    if expires is None or case.now < expires:
        return None
    return Finding(Code.EXPIRED, True, "is expired and within its grace period")


_LIFECYCLE: tuple[Rule, ...] = (_banned, _suspended, _expired, _overdue)
_SCOPE: tuple[Rule, ...] = (_product, _version, _entitlements)
_MACHINE: tuple[Rule, ...] = (_fingerprint_required, _machine_scope, _heartbeat)
_LIMITS: tuple[Rule, ...] = (_seats, _uses, _grace)

_ACTS: dict[Act, Callable[[Case], Verdict]] = {
    Act.VALIDATE: _check,
    Act.ACTIVATE: _activate,
    Act.DEACTIVATE: _deactivate,
    Act.PING: _ping,
    Act.CHECK_IN: _check_in,
    Act.USAGE: _usage,
    Act.CHECKOUT: _check,
}


# -- helpers ----------------------------------------------------------------------------------------------------


def _first(rules: tuple[Rule, ...], case: Case) -> Finding | None:
    for rule in rules:
        finding = rule(case)
        if finding is not None:
            return finding
    return None


def _verdict(case: Case, finding: Finding | None) -> Verdict:
    code, valid, detail = finding or Finding(Code.VALID, True, "is valid")
    machine = case.holding.active(case.call.fingerprint)
    return Verdict(code=code, valid=valid, detail=detail, holding=case.holding, machine=machine)


def with_machine(holding: Holding, machine: Machine, seats: int = 0, excess: int = 0) -> Holding:
    """The holding with `machine` in its new state, `seats` and `excess` being the differences it makes.

    It was seen just now, or gave up its seat: either way it is `stale` no more.
    """
    machines = {**holding.machines, machine.fingerprint: machine}
    stale = tuple(other for other in holding.stale if other.id != machine.id)
    seats, excess = holding.seats + seats, holding.excess + excess
    return replace(holding, machines=machines, stale=stale, seats=seats, excess=excess)


def free_seat(holding: Holding, machine: Machine, at: float) -> Holding:
    freed = replace(machine, active=False, excess=False, heartbeat_at=None, seat_at=at)
    left = with_machine(holding, freed, seats=-1, excess=-int(machine.excess))
    return replace(left, departed=holding.departed + 1)


def leave_seat(call: Call, holding: Holding, at: float) -> Holding:
    """The holding without the caller's machine in a seat, as of `at`.

    That it left is kept of a machine that holds no seat, and of an unknown one: an earlier activation, still in
    another node's queue, must not bring it back. Of the unknown only so many are kept.
    """
    if call.fingerprint is None:
        return holding
    known = holding.machines.get(call.fingerprint)
    if known is not None and known.active:
        return free_seat(holding, known, at)
    if known is None:
        return never_came(holding, replace(absent(call, holding), seat_at=at))
    return with_machine(holding, replace(known, culled=False, seat_at=at))


def never_came(holding: Holding, machine: Machine) -> Holding:
    """The holding with a machine that was never activated here, unless too many such are known of it."""
    if holding.never_came >= MOST_NEVER_CAME:
        return holding
    kept = with_machine(holding, machine)
    return replace(kept, never_came=holding.never_came + 1, departed=holding.departed + 1)


def absent(call: Call, holding: Holding) -> Machine:
    """The caller's machine where nothing is known of it: without a seat, and it has not come yet."""
    fingerprint = call.fingerprint or ""
    id = machine_id(holding.license.id, fingerprint)
    return Machine(id=id, license_id=holding.license.id, fingerprint=fingerprint, active=False)


def take_seat(case: Case) -> Holding | None:
    """The holding with the caller's machine active, or None where no seat may be had."""
    call, holding, now = case.call, case.holding, case.now
    assert call.fingerprint is not None
    known = holding.machines.get(call.fingerprint)
    if known is not None and known.active:
        # Activated again: a deactivation from before this moment, replayed later, must not undo it.
        return with_machine(holding, replace(_seen(known, call, now), seat_at=now))
    if holding.seats + 1 > case.license.seat_limit:
        holding = _release_stalest(case)
        if holding.seats + 1 > case.license.seat_limit:
            return None
    # A tombstone of a machine that left before it came is no machine yet.
    arrives = known is None or not known.created_at
    if arrives and (_moves_used_up(case) or holding.departed >= MOST_DEPARTED):
        return None
    if known is None or arrives:
        id = machine_id(case.license.id, call.fingerprint)
        new = Machine(id=id, license_id=case.license.id, fingerprint=call.fingerprint, created_at=now, seat_at=now)
        left = int(known is not None)
        arrived = with_machine(holding, _seen(new, call, now), seats=1)
        known_gone = {"never_came": max(0, holding.never_came - left), "departed": max(0, holding.departed - left)}
        return replace(arrived, arrivals=holding.arrivals + 1, **known_gone)
    free = replace(known, active=True, excess=False, culled=False, heartbeat_at=None)
    seated = with_machine(holding, replace(_seen(free, call, now), seat_at=now), seats=1)
    return replace(seated, departed=max(0, holding.departed - 1))


def _seen(machine: Machine, call: Call, now: float) -> Machine:
    """The machine as this call describes it: what the call leaves out stays as it was."""
    return replace(
        machine, name=call.name or machine.name, platform=call.platform or machine.platform, last_seen_at=now
    )


def _release_stalest(case: Case) -> Holding:
    days = case.license.policy.release_stale_days
    if days is None or not case.holding.stale:
        return case.holding
    stalest = case.holding.stale[0]
    unseen_for = case.now - (stalest.last_seen_at or stalest.created_at)
    return free_seat(case.holding, stalest, case.now) if unseen_for > days * DAY else case.holding


def _moves_used_up(case: Case) -> bool:
    moves, seats = case.license.policy.moves_per_30d, case.license.max_machines
    return moves is not None and seats is not None and case.holding.arrivals + 1 > seats + moves


def _start_expiry(call: Call, verdict: Verdict, now: float) -> Verdict:
    """Starts the clock of a license that runs from its first activation or first (valid) validation."""
    assert verdict.holding is not None
    license = verdict.holding.license
    policy = license.policy
    starts = {Act.ACTIVATE: "first_activation", Act.VALIDATE: "first_validation"}.get(call.act)
    if license.expires_at is not None or policy.duration_days is None or policy.expiry_basis != starts:
        return verdict
    started = replace(license, expires_at=now + policy.duration_days * DAY)
    return replace(verdict, holding=replace(verdict.holding, license=started))


@lru_cache(maxsize=4096)
def _version_matches(version: str, allowed: str) -> bool:
    return SpecifierSet(allowed).contains(Version(version), prereleases=True)
