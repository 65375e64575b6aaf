"""The rules by themselves: their edges in time, in number and in what was not sent."""

from __future__ import annotations

import pytest

from api.licensing import ALWAYS, DAY, Act, Code, Verdict, Watch
from tests.unit.licensing.scenes import HERE, NOW, Scene, flawless


def _validate(scene: Scene, watch: Watch = ALWAYS) -> tuple[Code, bool]:
    verdict: Verdict = scene.decide(Act.VALIDATE, watch)
    return verdict.code, verdict.valid


def test_a_perpetual_license_never_expires() -> None:
    assert _validate(flawless().on_license(expires_at=None)) == (Code.VALID, True)


@pytest.mark.parametrize(("seconds", "code"), [(1, Code.VALID), (0, Code.EXPIRED), (-1, Code.EXPIRED)])
def test_a_license_expires_at_the_very_second(seconds: int, code: Code) -> None:
    assert _validate(flawless().on_license(expires_at=NOW + seconds)) == (code, code is Code.VALID)


@pytest.mark.parametrize(("seconds", "valid"), [(1, True), (0, False)])
def test_grace_holds_it_up_until_its_own_last_second(seconds: int, valid: bool) -> None:
    scene = flawless().on_policy(expiry_strategy="maintain", grace_days=3)
    assert _validate(scene.on_license(expires_at=NOW - 3 * DAY + seconds)) == (Code.EXPIRED, valid)


@pytest.mark.parametrize(("seconds", "code"), [(1, Code.VALID), (0, Code.EXPIRED)])
def test_grace_begins_at_the_very_second_of_expiry(seconds: int, code: Code) -> None:
    scene = flawless().on_policy(expiry_strategy="maintain", grace_days=3)
    assert _validate(scene.on_license(expires_at=NOW + seconds)) == (code, True)


def test_grace_days_mean_nothing_to_a_policy_that_restricts() -> None:
    scene = flawless().on_policy(expiry_strategy="restrict", grace_days=3)
    assert _validate(scene.on_license(expires_at=NOW - 1)) == (Code.EXPIRED, False)


@pytest.mark.parametrize(("checked_in_at", "code"), [(NOW - 7 * DAY + 1, Code.VALID), (NOW - 7 * DAY, Code.OVERDUE)])
def test_check_in_is_due_after_so_many_days(checked_in_at: float, code: Code) -> None:
    assert _validate(flawless().on_license(checked_in_at=checked_in_at))[0] is code


def test_the_first_check_in_is_due_counting_from_creation() -> None:
    scene = flawless().on_license(checked_in_at=None)
    assert _validate(scene.on_license(created_at=NOW - 6 * DAY)) == (Code.VALID, True)
    assert _validate(scene.on_license(created_at=NOW - 7 * DAY)) == (Code.OVERDUE, False)


def test_without_a_check_in_rule_nothing_is_overdue() -> None:
    assert _validate(flawless().on_policy(check_in_days=None).on_license(checked_in_at=0.0)) == (Code.VALID, True)


@pytest.mark.parametrize(("beat_at", "code"), [(NOW - 600, Code.VALID), (NOW - 600.5, Code.HEARTBEAT_DEAD)])
def test_a_heartbeat_dies_after_its_interval(beat_at: float, code: Code) -> None:
    assert _validate(flawless().on_machine(heartbeat_at=beat_at))[0] is code


def test_without_a_heartbeat_rule_no_machine_is_dead() -> None:
    assert _validate(flawless().on_policy(machine_heartbeat_s=None).on_machine(heartbeat_at=None))[0] is Code.VALID


def test_time_in_which_the_cluster_could_not_listen_counts_against_nobody() -> None:
    dead = flawless().on_machine(heartbeat_at=NOW - 700)
    overdue = flawless().on_license(checked_in_at=NOW - 7 * DAY - 50)
    for scene, code, interval in ((dead, Code.HEARTBEAT_DEAD, 600.0), (overdue, Code.OVERDUE, 7 * DAY)):
        assert _validate(scene, watch=Watch(since=NOW - interval + 1)) == (Code.VALID, True)
        assert _validate(scene, watch=Watch(since=NOW - interval - 1)) == (code, False)
        assert _validate(scene, watch=Watch(until=NOW - 200)) == (Code.VALID, True)
        assert _validate(scene, watch=Watch(until=NOW - 40)) == (code, False)


def test_trouble_does_not_hold_up_an_expiry() -> None:
    late = flawless().on_license(expires_at=NOW - 1)
    assert _validate(late, watch=Watch(since=NOW, until=NOW - 100)) == (Code.EXPIRED, False)


def test_what_is_not_sent_is_not_checked() -> None:
    scene = flawless().on_call(product=None, version=None, entitlements=(), fingerprint=None)
    assert _validate(scene.on_machine(active=False, heartbeat_at=None)) == (Code.VALID, True)


@pytest.mark.parametrize(
    ("version", "code"), [("1.0", Code.VALID), ("2.9.9", Code.VALID), ("3.0", None), ("0.9", None)]
)
def test_a_version_must_be_covered(version: str, code: Code | None) -> None:
    assert _validate(flawless().on_call(version=version))[0] is (code or Code.VERSION_SCOPE_MISMATCH)


def test_a_prerelease_of_a_covered_version_is_covered() -> None:
    assert _validate(flawless().on_call(version="2.0rc1"))[0] is Code.VALID


def test_without_a_version_rule_every_version_is_covered() -> None:
    assert _validate(flawless().on_policy(versions=None).on_call(version="99"))[0] is Code.VALID


def test_all_entitlements_asked_for_must_be_there() -> None:
    scene = flawless().on_license(entitlements=("pro", "cloud", "api"))
    assert _validate(scene.on_call(entitlements=("cloud", "pro")))[0] is Code.VALID
    assert _validate(scene.on_call(entitlements=("cloud", "max")))[0] is Code.ENTITLEMENTS_MISSING


def test_a_required_fingerprint_that_is_sent_is_enough() -> None:
    assert _validate(flawless().on_policy(require_fingerprint=True)) == (Code.VALID, True)


def test_uses_run_out_when_the_limit_is_reached() -> None:
    assert _validate(flawless().on_license(uses=9)) == (Code.VALID, True)
    assert _validate(flawless().on_license(uses=10)) == (Code.USES_EXHAUSTED, False)
    assert _validate(flawless().on_license(uses=10, max_uses=None)) == (Code.VALID, True)


@pytest.mark.parametrize(
    ("overage", "seats", "most"),
    [
        ("none", 3, 3),
        ("1.25x", 3, 3),
        ("1.25x", 4, 5),
        ("1.5x", 3, 4),
        ("1.5x", 1, 1),
        ("2x", 3, 6),
        ("always", 3, 999),
    ],
)
def test_overage_floors(overage: str, seats: int, most: int) -> None:
    scene = flawless().on_policy(overage=overage).on_license(max_machines=seats)
    within = Code.VALID if most == seats else Code.TOO_MANY_MACHINES
    assert _validate(scene.on_holding(seats=most)) == (within, True)
    if overage != "always":
        assert _validate(scene.on_holding(seats=most + 1)) == (Code.TOO_MANY_MACHINES, False)


def test_unlimited_seats_are_never_too_many() -> None:
    assert _validate(flawless().on_license(max_machines=None).on_holding(seats=10_000)) == (Code.VALID, True)


def test_a_seat_too_many_that_is_tolerated_is_not_held_against_anybody() -> None:
    assert _validate(flawless().on_holding(seats=3, excess=1)) == (Code.VALID, True)
    assert _validate(flawless().on_holding(seats=4, excess=1)) == (Code.TOO_MANY_MACHINES, False)


def test_a_verdict_shows_the_callers_active_machine_only() -> None:
    assert flawless().decide(Act.VALIDATE).machine == flawless().holding.active(HERE)  # type: ignore[union-attr]
    assert flawless().on_machine(active=False).decide(Act.VALIDATE).machine is None
    assert flawless().on_call(fingerprint=None).decide(Act.VALIDATE).machine is None
