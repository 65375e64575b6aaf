"""What a node that is cut off may sign: every yes, and only what nobody else can have lifted."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from api.licensing import DAY, Act, Code, is_certain
from tests.unit.licensing.scenes import CAUSES, NOW, Cause, Scene, flawless

_CERTAIN = {
    Code.BANNED,
    Code.SUSPENDED,
    Code.EXPIRED,
    Code.PRODUCT_SCOPE_MISMATCH,
    Code.VERSION_SCOPE_MISMATCH,
    Code.ENTITLEMENTS_MISSING,
    Code.FINGERPRINT_SCOPE_REQUIRED,
}


def _certain(scene: Scene, act: Act = Act.VALIDATE, as_of: float = NOW) -> bool:
    assert scene.holding is not None
    return is_certain(scene.call, scene.holding, scene.decide(act), as_of)


@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause.code is not Code.NOT_FOUND], ids=lambda c: c.name)
def test_only_what_an_admin_alone_could_change_is_denied_on_ones_own(cause: Cause) -> None:
    scene = cause.spoil(flawless())
    verdict = scene.decide(Act.VALIDATE)
    assert _certain(scene) is (verdict.valid or verdict.code in _CERTAIN)


def test_a_yes_is_certain() -> None:
    assert _certain(flawless())


def test_an_expiry_is_certain_only_if_it_had_come_when_the_copy_was_made() -> None:
    expired = flawless().on_license(expires_at=NOW - 10)
    assert _certain(expired, as_of=NOW - 10)
    assert not _certain(expired, as_of=NOW - 11)


def test_a_new_seat_is_given_only_where_the_policy_lets_it() -> None:
    new = flawless().on_holding(machines={}, seats=0)
    for scene, allowed in ((new, True), (new.on_policy(isolated_activation=False), False)):
        assert scene.holding is not None
        verdict = scene.decide(Act.ACTIVATE)
        assert verdict.valid
        assert is_certain(replace(scene.call, act=Act.ACTIVATE), scene.holding, verdict, NOW - DAY) is allowed


def test_where_no_new_seats_are_given_a_machine_that_holds_one_is_activated_again() -> None:
    seated = flawless()
    for scene, allowed in ((seated, True), (seated.on_holding(machines={}, seats=0), False)):
        assert scene.holding is not None
        call, verdict = replace(scene.call, act=Act.ACTIVATE), scene.decide(Act.ACTIVATE)
        assert verdict.valid
        assert is_certain(call, scene.holding, verdict, NOW, may_grant=False) is allowed


def test_where_no_new_seats_are_given_every_other_yes_is_certain() -> None:
    scene = flawless().on_license(max_uses=None)
    assert scene.holding is not None
    for act in set(Act) - {Act.ACTIVATE}:
        assert is_certain(replace(scene.call, act=act), scene.holding, scene.decide(act), NOW, may_grant=False)


def test_a_license_that_keeps_itself_busy_gets_no_uses_beyond_its_limit() -> None:
    """Many calls at once send some of them to the queue: each node would count them from a copy of its own."""
    for limit, allowed in ((None, True), (9, False)):
        scene = flawless().on_license(max_uses=limit)
        assert scene.holding is not None
        call, verdict = replace(scene.call, act=Act.USAGE), scene.decide(Act.USAGE)
        assert verdict.valid
        assert is_certain(call, scene.holding, verdict, NOW, may_grant=False) is allowed
        assert is_certain(call, scene.holding, verdict, NOW), "cut off, it does as before"
