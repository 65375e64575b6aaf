"""What holds for any license, any call and any history: seats keep to their limit, denials give nothing away."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from api.licensing import DAY, Act, Call, Code, Holding, License, Machine, Policy, Watch, decide
from tests.unit.licensing.scenes import NOW

FINGERPRINTS = ("a", "b", "c", "d")
#: A heartbeat and a check-in stay though the verdict is a denial: they are facts.
FACTS = {Act.PING, Act.CHECK_IN}

_moments = st.one_of(st.none(), st.floats(NOW - 40 * DAY, NOW + 40 * DAY))
_limits = st.one_of(st.none(), st.integers(0, 5))

policies = st.builds(
    Policy,
    id=st.just("p"),
    product=st.sampled_from(["app", "tool"]),
    name=st.just("P"),
    duration_days=st.one_of(st.none(), st.integers(1, 60)),
    expiry_basis=st.sampled_from(["creation", "first_activation", "first_validation"]),
    expiry_strategy=st.sampled_from(["restrict", "maintain"]),
    grace_days=st.integers(0, 10),
    floating=st.booleans(),
    require_fingerprint=st.booleans(),
    overage=st.sampled_from(["none", "1.25x", "1.5x", "2x", "always"]),
    machine_heartbeat_s=st.one_of(st.none(), st.integers(60, 3_600)),
    check_in_days=st.one_of(st.none(), st.integers(1, 30)),
    versions=st.sampled_from([None, "", ">=1,<3", "==1.*"]),
    moves_per_30d=_limits,
    release_stale_days=st.one_of(st.none(), st.integers(1, 30)),
)
licenses = st.builds(
    License,
    id=st.just("l"),
    policy=policies,
    status=st.sampled_from(["active", "active", "active", "suspended", "banned"]),
    expires_at=_moments,
    max_machines=_limits,
    max_uses=_limits,
    entitlements=st.sampled_from([(), ("pro",), ("pro", "max")]),
    uses=st.integers(0, 6),
    checked_in_at=_moments,
    created_at=st.floats(NOW - 40 * DAY, NOW),
)


@st.composite
def holdings(draw: st.DrawFn) -> Holding:
    """A license with machines, its counts true to them."""
    machines = {
        fingerprint: Machine(
            id=f"m-{fingerprint}",
            license_id="l",
            fingerprint=fingerprint,
            active=draw(st.booleans()),
            heartbeat_at=draw(_moments),
            last_seen_at=draw(_moments),
            created_at=NOW - 40 * DAY,
        )
        for fingerprint in draw(st.sets(st.sampled_from(FINGERPRINTS)))
    }
    active = sorted((m for m in machines.values() if m.active), key=lambda m: m.last_seen_at or m.created_at)
    arrivals = draw(st.integers(0, 6))
    return Holding(license=draw(licenses), seats=len(active), arrivals=arrivals, machines=machines, stale=tuple(active))


def calls(acts: st.SearchStrategy[Act]) -> st.SearchStrategy[Call]:
    """Calls as they come through intake: a fingerprint where the call needs one."""
    return st.builds(
        Call,
        act=acts,
        fingerprint=st.sampled_from(FINGERPRINTS),
        product=st.sampled_from([None, "app", "tool"]),
        version=st.sampled_from([None, "1.0", "2.0rc1", "9"]),
        entitlements=st.sampled_from([(), ("pro",)]),
        increment=st.integers(1, 4),
    )


watches = st.builds(Watch, st.floats(NOW - 1e6, NOW), st.floats(NOW - 1e6, NOW))


def active_machines(holding: Holding) -> int:
    return sum(machine.active for machine in holding.machines.values())


@given(calls(st.sampled_from(Act)), st.one_of(st.none(), holdings()), watches, st.booleans())
def test_every_call_gets_a_verdict_that_agrees_with_itself(
    call: Call, holding: Holding | None, watch: Watch, anonymous: bool
) -> None:
    if anonymous and call.act is not Act.ACTIVATE:
        call = replace(call, fingerprint=None)
    verdict = decide(call, holding, NOW, watch=watch)
    assert verdict.detail
    assert (verdict.holding is None) == (verdict.code is Code.NOT_FOUND) == (holding is None)
    assert verdict.valid or verdict.code is not Code.VALID
    assert verdict.code in {Code.VALID, Code.EXPIRED, Code.TOO_MANY_MACHINES} or not verdict.valid


@given(calls(st.sampled_from(sorted(set(Act) - FACTS))), holdings())
def test_a_denial_changes_nothing(call: Call, holding: Holding) -> None:
    verdict = decide(call, holding, NOW)
    assert verdict.valid or verdict.holding is holding


@given(calls(st.sampled_from(sorted(FACTS))), holdings())
def test_a_denied_ping_or_check_in_changes_its_own_clock_at_most(call: Call, holding: Holding) -> None:
    after = decide(call, holding, NOW).holding
    assert after is not None
    machines = {
        fingerprint: replace(machine, heartbeat_at=None, last_seen_at=None)
        for fingerprint, machine in after.machines.items()
    }
    before = {
        fingerprint: replace(machine, heartbeat_at=None, last_seen_at=None)
        for fingerprint, machine in holding.machines.items()
    }
    assert machines == before
    assert replace(after.license, checked_in_at=None) == replace(holding.license, checked_in_at=None)
    assert (after.seats, after.excess, after.arrivals) == (holding.seats, holding.excess, holding.arrivals)


@given(holdings(), st.lists(calls(st.sampled_from([Act.ACTIVATE, Act.DEACTIVATE])), max_size=30))
def test_seats_are_counted_right_and_never_pass_the_limit(holding: Holding, history: list[Call]) -> None:
    most = max(holding.license.seat_limit, holding.seats)
    for step, call in enumerate(history):
        after = decide(call, holding, NOW + step * DAY).holding
        assert after is not None
        assert after.seats == active_machines(after) <= most
        assert after.seats <= max(after.license.seat_limit, holding.seats)
        holding = after


@given(holdings(), st.lists(calls(st.just(Act.USAGE)), max_size=20))
def test_uses_are_counted_exactly_and_never_pass_the_limit(holding: Holding, history: list[Call]) -> None:
    expected = holding.license.uses
    for call in history:
        verdict = decide(call, holding, NOW)
        expected += call.increment if verdict.valid else 0
        assert verdict.holding is not None
        holding = verdict.holding
        assert holding.license.uses == expected
        limit = math.inf if holding.license.max_uses is None else holding.license.max_uses
        assert not verdict.valid or expected <= limit


@given(calls(st.just(Act.ACTIVATE)), holdings())
def test_an_activation_that_went_well_goes_well_again_and_adds_nothing(call: Call, holding: Holding) -> None:
    first = decide(call, holding, NOW)
    again = decide(call, first.holding, NOW)
    assert (again.code, again.valid, again.holding) == (first.code, first.valid, first.holding)


@given(calls(st.just(Act.DEACTIVATE)), holdings())
def test_a_deactivation_is_always_valid_and_leaves_no_seat(call: Call, holding: Holding) -> None:
    verdict = decide(call, holding, NOW)
    assert (verdict.code, verdict.valid) == (Code.VALID, True)
    assert verdict.holding is not None
    assert verdict.holding.active(call.fingerprint) is None
