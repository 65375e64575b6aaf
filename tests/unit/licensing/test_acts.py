"""Ping, check-in, usage, checkout, the expiry that starts at first use, and what a retry is told."""

from __future__ import annotations

from typing import Any

import pytest

from api.licensing import DAY, MOST_NEVER_CAME, Act, Code, Holding, Machine, Verdict, machine_id, retried
from tests.unit.licensing.scenes import HERE, NOW, Scene, flawless


def _after(verdict: Verdict) -> Holding:
    assert verdict.holding is not None
    return verdict.holding


def _machine(verdict: Verdict) -> Machine:
    return _after(verdict).machines[HERE]


@pytest.mark.parametrize("beat_at", [None, NOW - 9_999, NOW - 1])
def test_a_ping_starts_the_heartbeat_and_keeps_it_alive(beat_at: float | None) -> None:
    verdict = flawless().on_machine(heartbeat_at=beat_at).decide(Act.PING)
    assert verdict.code is Code.VALID
    assert (_machine(verdict).heartbeat_at, _machine(verdict).last_seen_at) == (NOW, NOW)


def test_a_ping_never_sets_the_heartbeat_back() -> None:
    assert _machine(flawless().on_machine(heartbeat_at=NOW + 5).decide(Act.PING)).heartbeat_at == NOW + 5


@pytest.mark.parametrize("license", [{"uses": 10}, {"checked_in_at": 0.0}, {"status": "suspended"}])
def test_a_ping_is_a_fact_that_a_denial_does_not_undo(license: dict[str, Any]) -> None:
    verdict = flawless().on_license(**license).on_machine(heartbeat_at=NOW - 9_999).decide(Act.PING)
    assert not verdict.valid
    assert _machine(verdict).heartbeat_at == NOW


def test_a_ping_from_a_machine_without_a_seat_changes_nothing() -> None:
    scene = flawless().on_machine(active=False)
    verdict = scene.decide(Act.PING)
    assert verdict.code is Code.FINGERPRINT_SCOPE_MISMATCH
    assert verdict.holding is scene.holding


def test_a_check_in_resets_the_clock() -> None:
    verdict = flawless().on_license(checked_in_at=NOW - 99 * DAY).decide(Act.CHECK_IN)
    assert verdict.code is Code.VALID
    assert _after(verdict).license.checked_in_at == NOW


def test_a_check_in_never_sets_the_clock_back() -> None:
    assert _after(flawless().on_license(checked_in_at=NOW + 5).decide(Act.CHECK_IN)).license.checked_in_at == NOW + 5


def test_the_first_check_in_counts() -> None:
    assert _after(flawless().on_license(checked_in_at=None).decide(Act.CHECK_IN)).license.checked_in_at == NOW


@pytest.mark.parametrize("license", [{"status": "banned"}, {"status": "suspended"}, {"expires_at": NOW - 1}])
def test_a_banned_suspended_or_expired_license_does_not_check_in(license: dict[str, Any]) -> None:
    scene = flawless().on_license(**license)
    assert scene.decide(Act.CHECK_IN).holding is scene.holding


def test_a_check_in_counts_though_the_uses_are_exhausted() -> None:
    verdict = flawless().on_license(uses=10).decide(Act.CHECK_IN)
    assert (verdict.code, _after(verdict).license.checked_in_at) == (Code.USES_EXHAUSTED, NOW)


@pytest.mark.parametrize(
    ("uses", "increment", "code", "counted"),
    [
        (0, 1, Code.VALID, 1),
        (7, 3, Code.VALID, 10),
        (7, 4, Code.USES_EXHAUSTED, 7),
        (10, 1, Code.USES_EXHAUSTED, 10),
        (0, 1_000_000, Code.USES_EXHAUSTED, 0),
    ],
)
def test_usage_is_all_or_nothing(uses: int, increment: int, code: Code, counted: int) -> None:
    verdict = flawless().on_license(uses=uses).on_call(increment=increment).decide(Act.USAGE)
    assert (verdict.code, verdict.valid, _after(verdict).license.uses) == (code, code is Code.VALID, counted)


def test_usage_without_a_limit_is_counted_all_the_same() -> None:
    verdict = flawless().on_license(max_uses=None, uses=10**9).on_call(increment=5).decide(Act.USAGE)
    assert (verdict.code, _after(verdict).license.uses) == (Code.VALID, 10**9 + 5)


def test_usage_within_grace_is_counted_and_says_so() -> None:
    scene = flawless().on_license(expires_at=NOW - 1).on_policy(expiry_strategy="maintain", grace_days=1)
    verdict = scene.decide(Act.USAGE)
    assert (verdict.code, verdict.valid, _after(verdict).license.uses) == (Code.EXPIRED, True, 1)


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.CHECKOUT])
def test_validate_and_checkout_change_nothing(act: Act) -> None:
    scene = flawless()
    assert scene.decide(act).holding is scene.holding


def test_a_key_that_nobody_knows_has_no_holding_and_no_machine() -> None:
    verdict = flawless()._replace(holding=None).decide(Act.DEACTIVATE)
    assert (verdict.code, verdict.valid, verdict.holding, verdict.machine) == (Code.NOT_FOUND, False, None, None)


# -- the expiry that starts at first use ----------------------------------------------------------------------------


def _unstarted(basis: str, days: int | None = 14) -> Scene:
    return flawless().on_policy(expiry_basis=basis, duration_days=days).on_license(expires_at=None)


@pytest.mark.parametrize(
    ("basis", "starter"), [("first_activation", Act.ACTIVATE), ("first_validation", Act.VALIDATE), ("creation", None)]
)
@pytest.mark.parametrize("act", Act)
def test_the_clock_starts_with_its_own_act_and_no_other(basis: str, starter: Act | None, act: Act) -> None:
    expires_at = _after(_unstarted(basis).decide(act)).license.expires_at
    assert expires_at == (NOW + 14 * DAY if act is starter else None)


@pytest.mark.parametrize(("basis", "act"), [("first_activation", Act.ACTIVATE), ("first_validation", Act.VALIDATE)])
def test_a_clock_that_runs_is_not_started_again(basis: str, act: Act) -> None:
    scene = _unstarted(basis).on_license(expires_at=NOW + 5)
    assert _after(scene.decide(act)).license.expires_at == NOW + 5


@pytest.mark.parametrize(("basis", "act"), [("first_activation", Act.ACTIVATE), ("first_validation", Act.VALIDATE)])
def test_a_denial_does_not_start_the_clock(basis: str, act: Act) -> None:
    scene = _unstarted(basis).on_license(uses=10)
    assert scene.decide(act).holding is scene.holding


def test_a_perpetual_policy_has_no_clock_to_start() -> None:
    assert _after(_unstarted("first_validation", None).decide(Act.VALIDATE)).license.expires_at is None


@pytest.mark.parametrize(("known", "is_kept"), [(MOST_NEVER_CAME - 1, True), (MOST_NEVER_CAME, False)])
def test_only_so_many_machines_that_were_never_heard_of_are_kept_as_gone(known: int, is_kept: bool) -> None:
    verdict = flawless().on_call(fingerprint="a newcomer").on_holding(never_came=known).decide(Act.DEACTIVATE)
    assert (verdict.code, verdict.valid) == (Code.VALID, True)
    assert verdict.holding is not None
    assert ("a newcomer" in verdict.holding.machines) is is_kept
    assert verdict.holding.never_came == MOST_NEVER_CAME


# -- retries ---------------------------------------------------------------------------------------------------------


def _retry(scene: Scene, act: Act, first: Verdict) -> Verdict:
    assert scene.holding is not None
    return retried(scene.on_call(act=act).call, scene.holding, first, NOW - 9, NOW)[0]


def test_a_retry_gives_the_first_outcome_and_does_nothing_again() -> None:
    first = flawless().on_license(uses=9).decide(Act.USAGE)
    now = Scene(flawless().call, first.holding)
    again = _retry(now, Act.USAGE, first)
    assert (again.code, again.valid, again.detail) == (first.code, first.valid, first.detail)
    assert again.holding is first.holding


def test_a_retried_refusal_is_still_a_refusal_though_a_seat_is_free_by_now() -> None:
    first = flawless().on_holding(seats=2, machines={}).decide(Act.ACTIVATE)
    assert _retry(flawless().on_holding(seats=0, machines={}), Act.ACTIVATE, first).code is Code.MACHINE_LIMIT_EXCEEDED


@pytest.mark.parametrize(
    ("floating", "seats", "code"),
    [(False, 0, Code.NO_MACHINE), (True, 0, Code.NO_MACHINES), (True, 1, Code.FINGERPRINT_SCOPE_MISMATCH)],
)
def test_a_retried_activation_of_a_machine_without_its_seat_gets_todays_denial(
    floating: bool, seats: int, code: Code
) -> None:
    scene = flawless().on_policy(floating=floating)
    first = scene.decide(Act.ACTIVATE)
    assert first.valid
    assert _retry(scene.on_holding(seats=seats, machines={}), Act.ACTIVATE, first).code is code


def test_a_retried_activation_of_a_machine_that_has_its_seat_is_the_first_outcome() -> None:
    first = flawless().decide(Act.ACTIVATE)
    assert first.holding is not None
    assert _retry(Scene(flawless().call, first.holding), Act.ACTIVATE, first).code is first.code


@pytest.mark.parametrize(
    ("before", "today", "as_of"),
    [
        ({}, {}, NOW),
        ({}, {"status": "suspended"}, NOW),
        ({"status": "suspended"}, {"status": "suspended"}, NOW),
        ({"status": "suspended"}, {}, NOW - 9),
        ({"uses": 10}, {"uses": 0}, NOW - 9),
    ],
)
def test_a_denial_that_only_the_first_call_justified_is_as_old_as_that_call(
    before: dict[str, Any], today: dict[str, Any], as_of: float
) -> None:
    first, scene = flawless().on_license(**before).decide(Act.USAGE), flawless().on_license(**today)
    assert scene.holding is not None
    call = scene.on_call(act=Act.USAGE).call
    assert retried(call, scene.holding, first, NOW - 9, NOW)[1] == as_of


@pytest.mark.parametrize(
    ("license", "code"),
    [
        ({"status": "banned"}, Code.BANNED),
        ({"status": "suspended"}, Code.SUSPENDED),
        ({"expires_at": NOW - 1}, Code.EXPIRED),
    ],
)
def test_a_retry_meets_what_has_since_been_denied_but_a_deactivation_does_not(
    license: dict[str, Any], code: Code
) -> None:
    today = flawless().on_license(**license)
    for act in (Act.ACTIVATE, Act.USAGE):
        again = _retry(today, act, flawless().decide(act))
        assert (again.code, again.valid) == (code, False)
        assert again.holding is today.holding
    assert _retry(today, Act.DEACTIVATE, flawless().decide(Act.DEACTIVATE)).code is Code.VALID


def test_two_nodes_that_never_spoke_give_a_machine_one_id() -> None:
    assert machine_id("l", HERE) == machine_id("l", HERE) != machine_id("k", HERE)
    assert machine_id("ab", "c") != machine_id("a", "bc")
