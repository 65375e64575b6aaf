"""What each call does to a license on both ledgers, and the offline token that some of them give."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.ledger.migrate import ledger_id
from api.licensing import DAY, Act
from api.signing import Reason, TokenInvalid, Verifier
from tests.support.nodes import (
    PRODUCT,
    Answer,
    Node,
    change_license,
    change_machine,
    license_row,
    node_on,
    sell,
)

HERE = {"fingerprint": "here"}
GRACE = {"expiry_strategy": "maintain", "grace_days": 3}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on(request.param, request, tmp_path_factory.mktemp("node")) as node:
        yield node


# -- what calls do --------------------------------------------------------------------------------------------------


def test_activating_the_same_machine_again_is_the_same_machine(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 1})
    first = node.call("activate", sold.key, fingerprint="here", name="Desk", platform="windows")
    again = node.call("activate", sold.key, fingerprint="here")
    assert (again.code, again.body["machine"]) == ("VALID", first.body["machine"])
    assert license_row(node.database, sold)["seats"] == 1


def test_a_deactivated_seat_is_free_however_often_it_is_given_back(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 1})
    node.call("activate", sold.key, fingerprint="here")
    assert node.call("activate", sold.key, fingerprint="there").code == "MACHINE_LIMIT_EXCEEDED"
    for _ in range(2):
        assert node.call("deactivate", sold.key, fingerprint="here").code == "VALID"
    assert node.call("activate", sold.key, fingerprint="there").code == "VALID"
    assert license_row(node.database, sold)["seats"] == 1


def test_usage_is_counted_all_or_nothing(node: Node) -> None:
    sold = sell(node.database, {"max_uses": 5})
    counted = [node.call("usage", sold.key, **fields) for fields in ({}, {"increment": 3}, {"increment": 2}, {})]
    assert [(one.code, one.body["license"]["uses"]) for one in counted] == [
        ("VALID", 1),
        ("VALID", 4),
        ("USES_EXHAUSTED", 4),
        ("VALID", 5),
    ]


@pytest.mark.parametrize(("basis", "act"), [("first_activation", "activate"), ("first_validation", "validate")])
def test_a_license_that_runs_from_its_first_use_starts_once(node: Node, basis: str, act: str) -> None:
    sold = sell(node.database, {"duration_days": 10, "expiry_basis": basis})
    other = {"activate": "validate", "validate": "activate"}[act]
    assert node.call(other, sold.key, **(HERE if other == "activate" else {})).body["license"]["expires_at"] is None
    first = node.call(act, sold.key, fingerprint="here") if act == "activate" else node.call(act, sold.key)
    assert (first.claims or {})["lic_exp"] == pytest.approx(time.time() + 10 * DAY, abs=60)
    expires_at = license_row(node.database, sold)["expires_at"]
    node.call(act, sold.key, fingerprint="here")
    assert license_row(node.database, sold)["expires_at"] == expires_at


def test_a_check_in_resets_the_clock_but_not_of_a_suspended_license(node: Node) -> None:
    sold = sell(node.database, {"check_in_days": 7}, checked_in_at=1.0)
    assert node.call("validate", sold.key).code == "OVERDUE"
    change_license(node.database, sold, status="suspended")
    assert node.call("check-in", sold.key).code == "SUSPENDED"
    assert license_row(node.database, sold)["checked_in_at"] == 1.0
    change_license(node.database, sold, status="active")
    assert node.call("check-in", sold.key).code == "VALID"
    assert node.call("validate", sold.key).code == "VALID"


def test_an_activation_does_not_start_the_heartbeat_and_a_ping_does(node: Node) -> None:
    sold = sell(node.database, {"machine_heartbeat_s": 600})
    assert node.call("activate", sold.key, fingerprint="here").code == "VALID"
    assert node.call("validate", sold.key, fingerprint="here").code == "HEARTBEAT_NOT_STARTED"
    assert node.call("ping", sold.key, fingerprint="here").code == "VALID"
    assert node.call("validate", sold.key, fingerprint="here").code == "VALID"


def test_the_stalest_seat_is_taken_where_the_policy_says_so(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 2, "release_stale_days": 30})
    for fingerprint in ("old", "older"):
        node.call("activate", sold.key, fingerprint=fingerprint)
    for fingerprint, days in (("old", 31), ("older", 32)):
        change_machine(node.database, sold, fingerprint, last_seen_at=time.time() - days * DAY)
    assert node.call("activate", sold.key, fingerprint="new").code == "VALID"
    assert node.call("validate", sold.key, fingerprint="older").code == "FINGERPRINT_SCOPE_MISMATCH"
    assert node.call("validate", sold.key, fingerprint="old").code == "VALID"


def test_new_fingerprints_are_limited_where_the_policy_says_so(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 1, "moves_per_30d": 1})
    codes = []
    for fingerprint in ("a", "b", "c", "a"):
        codes.append(node.call("activate", sold.key, fingerprint=fingerprint).code)
        node.call("deactivate", sold.key, fingerprint=fingerprint)
    assert codes == ["VALID", "VALID", "MACHINE_LIMIT_EXCEEDED", "VALID"]


def test_a_check_says_when_license_and_machine_were_last_seen(node: Node) -> None:
    sold = sell(node.database)
    node.call("activate", sold.key, fingerprint="here")
    change_license(node.database, sold, last_seen_at=1.0)
    change_machine(node.database, sold, "here", last_seen_at=1.0)
    node.call("validate", sold.key, fingerprint="here")
    assert license_row(node.database, sold)["last_seen_at"] > time.time() - 60


# -- the offline token ----------------------------------------------------------------------------------------------


def lease_of(answer: Answer) -> dict[str, Any]:
    assert answer.lease is not None, answer.body
    return answer.lease


def test_an_offline_token_is_complete_and_holds_for_its_machine_alone(node: Node) -> None:
    expires = int(time.time()) + 1000
    sold = sell(node.database, {"entitlements": ["pro"], **GRACE}, expires_at=expires)
    lease = dict(lease_of(answer := node.call("activate", sold.key, fingerprint="here")))
    moving = {name: lease.pop(name) for name in ("iat", "nbf", "jti")}
    assert lease == {
        "iss": "protecao",
        "exp": expires + 3 * DAY,  # shorter than the policy's 7 days
        "sub": sold.id,
        "kh": sold.key_hash,
        "fp": "here",
        "aud": PRODUCT,
        "ent": ["pro"],
        "lic_exp": expires,
        "grace_until": expires + 3 * DAY,
        "led": ledger_id(node.database),
        "epoch": 1,
    }
    assert moving["iat"] == moving["nbf"] == (answer.claims or {})["iat"]
    offline = {"key": sold.key, "fingerprint": "here", "product": PRODUCT, "now": int(time.time())}
    verifier, token = Verifier(node.jwks()), answer.body["token"]
    verifier.verify_lease(token, **offline)
    for changed, reason in (
        ({"fingerprint": "there"}, Reason.FP),
        ({"key": "KEY-another"}, Reason.KH),
        ({"product": "other"}, Reason.AUD),
        ({"now": expires + int(3 * DAY) + 1}, Reason.EXPIRED),
    ):
        with pytest.raises(TokenInvalid) as refused:
            verifier.verify_lease(token, **{**offline, **changed})
        assert refused.value.reason is reason


def test_the_two_kinds_of_token_are_never_taken_for_one_another(node: Node) -> None:
    sold = sell(node.database)
    body = json.dumps({"key": sold.key, "nonce": "n" * 16, "fingerprint": "here"}).encode()
    answer, verifier = node.send("activate", body), Verifier(node.jwks())
    offline = {"key": sold.key, "fingerprint": "here", "product": PRODUCT}
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify_lease(answer.body["verdict"], **offline, now=int(time.time()))
    assert refused.value.reason is Reason.TYP
    about = {"act": "activate", "nonce": "n" * 16, "request_id": "an-id-of-it", "body": body}
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify_verdict(answer.body["token"], **about, **offline)
    assert refused.value.reason is Reason.TYP


@pytest.mark.parametrize("act", sorted(Act))
def test_only_calls_from_an_active_machine_that_are_valid_get_a_token(node: Node, act: str) -> None:
    sold = sell(node.database)
    node.call("activate", sold.key, fingerprint="here")
    fields = HERE if act not in ("check-in", "usage") else {}
    valid = node.call(act, sold.key, **fields)
    assert (valid.lease is not None) == (act in ("validate", "activate", "ping", "checkout"))
    change_license(node.database, sold, status="suspended")
    assert node.call(act, sold.key, **fields).lease is None


def test_without_a_fingerprint_there_is_no_token(node: Node) -> None:
    sold = sell(node.database)
    assert (node.call("validate", sold.key).code, node.call("validate", sold.key).lease) == ("VALID", None)


@pytest.mark.parametrize(
    ("offline_ttl_s", "ttl", "lives"),
    [
        (604_800, None, 604_800),
        (604_800, 5, 60),
        (604_800, 3600, 3600),
        (604_800, 0, 60),
        (604_800, -5, 60),
        (604_800, 99_999_999, 604_800),
        (604_800, 2**53, 604_800),
        (30, 3600, 30),
    ],
)
def test_a_checkout_lives_as_long_as_asked_between_a_minute_and_the_policys_limit(
    node: Node, offline_ttl_s: int, ttl: int | None, lives: int
) -> None:
    sold = sell(node.database, {"offline_ttl_s": offline_ttl_s})
    node.call("activate", sold.key, fingerprint="here")
    fields = HERE if ttl is None else {**HERE, "ttl": ttl}
    lease = lease_of(node.call("checkout", sold.key, **fields))
    assert lease["exp"] - lease["iat"] == lives


def test_a_policy_without_an_offline_time_gives_no_token(node: Node) -> None:
    sold = sell(node.database, {"offline_ttl_s": None})
    for act in ("activate", "validate", "ping", "checkout"):
        answer = node.call(act, sold.key, fingerprint="here")
        assert (answer.code, answer.lease) == ("VALID", None)


def test_a_token_never_outlives_the_license(node: Node) -> None:
    expires = int(time.time()) + 500
    sold = sell(node.database, expires_at=expires)
    lease = lease_of(node.call("activate", sold.key, fingerprint="here"))
    assert (lease["exp"], lease["lic_exp"], lease.get("grace_until")) == (expires, expires, None)


def test_in_its_grace_a_license_still_gives_tokens_that_end_with_it(node: Node) -> None:
    expired = int(time.time()) - 100
    sold = sell(node.database, GRACE, expires_at=expired)
    lease = lease_of(node.call("activate", sold.key, fingerprint="here"))
    assert (lease["exp"], lease["grace_until"]) == (expired + 3 * DAY, expired + 3 * DAY)
