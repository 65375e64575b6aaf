"""Activate and deactivate: who gets a seat, whose seat is taken, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from api.licensing import DAY, MOST_DEPARTED, Act, Code, Holding, Machine, Verdict, machine_id
from tests.unit.licensing.scenes import ELSEWHERE, HERE, NOW, Scene, flawless


def _newcomer(**holding: Any) -> Scene:
    """A machine nobody has seen asks for a seat; by default one of the two is free."""
    return flawless().on_holding(**{"seats": 1, "machines": {}, **holding})


def _after(verdict: Verdict) -> Holding:
    assert verdict.holding is not None
    return verdict.holding


def _outcome(verdict: Verdict) -> tuple[Code, bool, int]:
    return verdict.code, verdict.valid, _after(verdict).seats


def _stale(days: float, **changes: Any) -> Machine:
    at = NOW - days * DAY
    return replace(
        Machine(id="old", license_id="l", fingerprint=ELSEWHERE, heartbeat_at=at, last_seen_at=at, created_at=at),
        **changes,
    )


def test_a_new_machine_takes_a_seat_and_does_not_start_its_heartbeat() -> None:
    verdict = _newcomer(arrivals=4).on_call(name="PC", platform="win").decide(Act.ACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 2)
    assert _after(verdict).arrivals == 5
    assert verdict.machine == Machine(
        id=machine_id("l", HERE),
        license_id="l",
        fingerprint=HERE,
        name="PC",
        platform="win",
        last_seen_at=NOW,
        created_at=NOW,
        seat_at=NOW,
    )
    assert Scene(flawless().call, verdict.holding).decide(Act.VALIDATE).code is Code.HEARTBEAT_NOT_STARTED


def test_the_same_machine_again_is_the_same_machine() -> None:
    before = flawless().on_machine(name="PC", platform="win").on_holding(seats=2, arrivals=1)
    verdict = before.decide(Act.ACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 2)
    assert _after(verdict).arrivals == 1
    assert before.holding is not None
    assert verdict.machine == replace(before.holding.machines[HERE], last_seen_at=NOW, seat_at=NOW)


def test_the_same_machine_again_is_no_error_where_the_limit_was_lowered_meanwhile() -> None:
    lowered = flawless().on_holding(seats=2).on_license(max_machines=1)
    assert _outcome(lowered.decide(Act.ACTIVATE)) == (Code.TOO_MANY_MACHINES, True, 2)
    assert lowered.decide(Act.VALIDATE).valid is False
    assert _outcome(lowered.on_machine(active=False).decide(Act.ACTIVATE))[0] is Code.MACHINE_LIMIT_EXCEEDED


def test_activating_again_takes_a_new_name_and_keeps_what_is_not_sent() -> None:
    verdict = flawless().on_machine(name="PC", platform="win").on_call(name="Laptop").decide(Act.ACTIVATE)
    assert verdict.machine is not None
    assert (verdict.machine.name, verdict.machine.platform) == ("Laptop", "win")


def test_a_machine_that_comes_back_is_no_arrival_and_keeps_its_name_and_age() -> None:
    gone = flawless().on_machine(active=False, name="PC", excess=True).on_holding(seats=1, arrivals=3)
    verdict = gone.decide(Act.ACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 2)
    assert _after(verdict).arrivals == 3
    assert gone.holding is not None
    free = replace(gone.holding.machines[HERE], active=True, excess=False, heartbeat_at=None)
    expected = replace(free, last_seen_at=NOW, seat_at=NOW)
    assert verdict.machine == expected


def test_the_last_seat_is_given_and_no_more() -> None:
    assert _outcome(_newcomer(seats=1).decide(Act.ACTIVATE)) == (Code.VALID, True, 2)
    refused = _newcomer(seats=2)
    verdict = refused.decide(Act.ACTIVATE)
    assert _outcome(verdict) == (Code.MACHINE_LIMIT_EXCEEDED, False, 2)
    assert verdict.holding is refused.holding
    assert verdict.machine is None


def test_a_license_without_seats_seats_nobody_and_one_without_a_limit_everybody() -> None:
    scene = _newcomer(seats=0)
    assert scene.on_license(max_machines=0).decide(Act.ACTIVATE).code is Code.MACHINE_LIMIT_EXCEEDED
    assert scene.on_license(max_machines=None).on_holding(seats=9_999).decide(Act.ACTIVATE).code is Code.VALID


def test_an_activation_into_the_overage_is_valid_and_says_so() -> None:
    scene = _newcomer(seats=2).on_policy(overage="1.5x")
    assert _outcome(scene.decide(Act.ACTIVATE)) == (Code.TOO_MANY_MACHINES, True, 3)
    assert _outcome(scene.on_holding(seats=3).decide(Act.ACTIVATE)) == (Code.MACHINE_LIMIT_EXCEEDED, False, 3)


def test_three_seats_at_a_quarter_more_are_three() -> None:
    scene = _newcomer(seats=3).on_policy(overage="1.25x").on_license(max_machines=3)
    assert scene.decide(Act.ACTIVATE).code is Code.MACHINE_LIMIT_EXCEEDED


def test_a_tolerated_seat_is_still_a_seat_to_the_next_machine() -> None:
    scene = _newcomer(seats=2, excess=1)
    assert scene.decide(Act.ACTIVATE).code is Code.MACHINE_LIMIT_EXCEEDED


def test_a_refused_activation_takes_no_seat_whatever_refused_it() -> None:
    exhausted = _newcomer(seats=1).on_license(uses=10)
    verdict = exhausted.decide(Act.ACTIVATE)
    assert verdict.code is Code.USES_EXHAUSTED
    assert verdict.holding is exhausted.holding


def test_at_the_limit_the_machine_longest_unseen_makes_room() -> None:
    scene = _newcomer(seats=2, stale=(_stale(31), _stale(30.5, id="next"))).on_policy(release_stale_days=30)
    verdict = scene.decide(Act.ACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 2)
    released = _after(verdict).machines[ELSEWHERE]
    assert (released.active, released.heartbeat_at) == (False, None)
    assert [machine.id for machine in _after(verdict).stale] == ["next"]


def test_a_machine_that_was_never_seen_again_is_as_old_as_it_is() -> None:
    scene = _newcomer(seats=2, stale=(_stale(31, last_seen_at=None),)).on_policy(release_stale_days=30)
    assert scene.decide(Act.ACTIVATE).code is Code.VALID


@pytest.mark.parametrize(("days", "stale"), [(None, (_stale(400),)), (30, ()), (30, (_stale(30),))])
def test_nobody_makes_room_where_the_policy_or_the_time_forbids_it(
    days: int | None, stale: tuple[Machine, ...]
) -> None:
    scene = _newcomer(seats=2, stale=stale).on_policy(release_stale_days=days)
    assert _outcome(scene.decide(Act.ACTIVATE)) == (Code.MACHINE_LIMIT_EXCEEDED, False, 2)


def test_an_old_machine_that_was_seen_lately_keeps_its_seat() -> None:
    stale = (_stale(400, last_seen_at=NOW - DAY),)
    scene = _newcomer(seats=2, stale=stale).on_policy(release_stale_days=30)
    assert scene.decide(Act.ACTIVATE).code is Code.MACHINE_LIMIT_EXCEEDED


def test_nobody_makes_room_while_a_seat_is_free() -> None:
    verdict = _newcomer(seats=1, stale=(_stale(400),)).on_policy(release_stale_days=30).decide(Act.ACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 2)
    assert ELSEWHERE not in _after(verdict).machines


@pytest.mark.parametrize("act", [Act.PING, Act.ACTIVATE])
def test_a_machine_that_was_seen_just_now_makes_room_for_nobody(act: Act) -> None:
    unseen = _stale(400)
    scene = _newcomer(seats=2, stale=(unseen,), machines={ELSEWHERE: unseen}).on_policy(release_stale_days=30)
    seen = Scene(scene.call, scene.on_call(fingerprint=ELSEWHERE).decide(act).holding)
    assert _outcome(seen.decide(Act.ACTIVATE)) == (Code.MACHINE_LIMIT_EXCEEDED, False, 2)


def test_one_released_seat_does_not_help_where_two_are_too_many() -> None:
    scene = _newcomer(seats=3, stale=(_stale(400),)).on_policy(release_stale_days=30)
    verdict = scene.decide(Act.ACTIVATE)
    assert verdict.code is Code.MACHINE_LIMIT_EXCEEDED
    assert verdict.holding is scene.holding


def test_a_released_machine_that_was_tolerated_is_tolerated_no_more() -> None:
    scene = _newcomer(seats=2, excess=1, stale=(_stale(400, excess=True),)).on_policy(release_stale_days=30)
    after = _after(scene.decide(Act.ACTIVATE))
    assert (after.seats, after.excess) == (2, 0)


@pytest.mark.parametrize(("arrivals", "code"), [(2, Code.VALID), (3, Code.MACHINE_LIMIT_EXCEEDED)])
def test_a_license_may_bring_its_seats_and_so_many_moves_in_30_days(arrivals: int, code: Code) -> None:
    scene = _newcomer(seats=0, arrivals=arrivals).on_policy(moves_per_30d=1)
    assert scene.decide(Act.ACTIVATE).code is code


def test_a_machine_that_comes_back_is_not_a_move() -> None:
    scene = flawless().on_machine(active=False).on_holding(seats=0, arrivals=99).on_policy(moves_per_30d=0)
    assert scene.decide(Act.ACTIVATE).code is Code.VALID


def test_moves_are_not_counted_where_seats_are_not() -> None:
    scene = _newcomer(arrivals=99).on_policy(moves_per_30d=0).on_license(max_machines=None)
    assert scene.decide(Act.ACTIVATE).code is Code.VALID


@pytest.mark.parametrize("limit", [2, None], ids=["two seats", "seats without a limit"])
@pytest.mark.parametrize(
    ("departed", "code"), [(MOST_DEPARTED - 1, Code.VALID), (MOST_DEPARTED, Code.MACHINE_LIMIT_EXCEEDED)]
)
def test_a_license_with_too_many_machines_that_left_brings_no_new_one(
    departed: int, code: Code, limit: int | None
) -> None:
    scene = _newcomer(seats=0, departed=departed).on_policy(moves_per_30d=None).on_license(max_machines=limit)
    assert scene.decide(Act.ACTIVATE).code is code


def test_a_machine_that_comes_back_is_not_one_more_that_left() -> None:
    scene = flawless().on_machine(active=False).on_holding(seats=0, departed=MOST_DEPARTED)
    verdict = scene.decide(Act.ACTIVATE)
    assert verdict.code is Code.VALID
    assert _after(verdict).departed == MOST_DEPARTED - 1
    left = Scene(scene.call, verdict.holding).decide(Act.DEACTIVATE)
    assert _after(left).departed == MOST_DEPARTED


def test_used_up_moves_make_nobody_give_up_a_seat() -> None:
    scene = _newcomer(seats=2, arrivals=2, stale=(_stale(400),)).on_policy(release_stale_days=30, moves_per_30d=0)
    assert scene.decide(Act.ACTIVATE).holding is scene.holding


def test_a_deactivation_frees_the_seat() -> None:
    scene = flawless().on_holding(seats=2)
    verdict = scene.decide(Act.DEACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 1)
    assert verdict.machine is None
    freed = _after(verdict).machines[HERE]
    assert (freed.active, freed.heartbeat_at) == (False, None)


def test_a_deactivation_may_be_repeated() -> None:
    once = Scene(flawless().call, flawless().decide(Act.DEACTIVATE).holding)
    verdict = once.decide(Act.DEACTIVATE)
    assert _outcome(verdict) == (Code.VALID, True, 0)
    assert verdict.holding == once.holding


def test_a_machine_that_was_never_there_deactivates_well() -> None:
    assert _outcome(_newcomer(seats=1).decide(Act.DEACTIVATE)) == (Code.VALID, True, 1)


@pytest.mark.parametrize("license", [{"status": "banned"}, {"status": "suspended"}, {"expires_at": NOW - 1}])
def test_a_deactivation_frees_the_seat_whatever_the_licenses_state(license: dict[str, Any]) -> None:
    assert _outcome(flawless().on_license(**license).decide(Act.DEACTIVATE)) == (Code.VALID, True, 0)


def test_a_tolerated_seat_that_is_freed_is_gone_from_both_counts() -> None:
    after = _after(flawless().on_machine(excess=True).on_holding(seats=3, excess=1).decide(Act.DEACTIVATE))
    assert (after.seats, after.excess) == (2, 0)
