"""Every verdict code over HTTP on both ledgers, and what is signed with it: the claims and the offline token."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from api.licensing import DAY, Act, Code
from api.signing import Reason, TokenInvalid, Verifier
from tests.support.nodes import (
    PRODUCT,
    Answer,
    Node,
    Sold,
    change_license,
    change_machine,
    events_of,
    license_row,
    node_on,
    sell,
)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on(request.param, request, tmp_path_factory.mktemp("node")) as node:
        yield node


# -- every code -----------------------------------------------------------------------------------------------------

Arrange = Callable[[Node, Sold], object]


def activated(*fingerprints: str) -> Arrange:
    return lambda node, sold: [node.call("activate", sold.key, fingerprint=one) for one in fingerprints]


def beating(node: Node, sold: Sold) -> None:
    node.call("activate", sold.key, fingerprint="here")
    node.call("ping", sold.key, fingerprint="here")


def dead(node: Node, sold: Sold) -> None:
    beating(node, sold)
    change_machine(node.database, sold, "here", heartbeat_at=time.time() - 601)


def used(node: Node, sold: Sold) -> None:
    assert node.call("usage", sold.key, increment=2).code == "VALID"


def crowded(node: Node, sold: Sold) -> None:
    """More machines than seats, as after the vendor took seats back."""
    activated("here", "there", "third")(node, sold)
    change_license(node.database, sold, max_machines=1)


class Way(NamedTuple):
    """How one code is reached."""

    code: str
    valid: bool
    act: str = "validate"
    rules: Mapping[str, Any] = MappingProxyType({})
    columns: Callable[[], dict[str, Any]] = dict
    arrange: Arrange = lambda node, sold: None
    fields: Mapping[str, Any] = MappingProxyType({})


def ago(days: float) -> Callable[[], dict[str, Any]]:
    return lambda: {"expires_at": time.time() - days * DAY}


HERE = {"fingerprint": "here"}
GRACE = {"expiry_strategy": "maintain", "grace_days": 3}

WAYS = {
    "valid": Way("VALID", True, fields={"product": PRODUCT, "version": "1.0"}),
    "valid on an activated machine": Way("VALID", True, arrange=activated("here"), fields=HERE),
    "banned": Way("BANNED", False, columns=lambda: {"status": "banned"}),
    "suspended": Way("SUSPENDED", False, columns=lambda: {"status": "suspended"}),
    "expired": Way("EXPIRED", False, columns=ago(1)),
    "expired, in its grace": Way("EXPIRED", True, rules=GRACE, columns=ago(1)),
    "expired, past its grace": Way("EXPIRED", False, rules=GRACE, columns=ago(4)),
    "overdue": Way("OVERDUE", False, rules={"check_in_days": 7}, columns=lambda: {"created_at": time.time() - 8 * DAY}),
    "overdue since its last check-in": Way(
        "OVERDUE", False, rules={"check_in_days": 7}, columns=lambda: {"checked_in_at": time.time() - 8 * DAY}
    ),
    "another product": Way("PRODUCT_SCOPE_MISMATCH", False, fields={"product": "other"}),
    "another version": Way("VERSION_SCOPE_MISMATCH", False, rules={"versions": ">=1,<3"}, fields={"version": "3.0"}),
    "an entitlement it has not": Way(
        "ENTITLEMENTS_MISSING", False, rules={"entitlements": ["pro"]}, fields={"entitlements": ["pro", "max"]}
    ),
    "no fingerprint where one is required": Way(
        "FINGERPRINT_SCOPE_REQUIRED", False, rules={"require_fingerprint": True}
    ),
    "no machine, node-locked": Way("NO_MACHINE", False, rules={"floating": False}, fields=HERE),
    "no machine, floating": Way("NO_MACHINES", False, fields=HERE),
    "a ping from a machine that was never activated": Way("NO_MACHINES", False, act="ping", fields=HERE),
    "only other machines": Way("FINGERPRINT_SCOPE_MISMATCH", False, arrange=activated("there"), fields=HERE),
    "no heartbeat yet": Way(
        "HEARTBEAT_NOT_STARTED", False, rules={"machine_heartbeat_s": 600}, arrange=activated("here"), fields=HERE
    ),
    "a heartbeat that stopped": Way(
        "HEARTBEAT_DEAD", False, rules={"machine_heartbeat_s": 600}, arrange=dead, fields=HERE
    ),
    "a heartbeat that goes on": Way("VALID", True, rules={"machine_heartbeat_s": 600}, arrange=beating, fields=HERE),
    "no seat left": Way(
        "MACHINE_LIMIT_EXCEEDED",
        False,
        act="activate",
        rules={"max_machines": 1},
        arrange=activated("there"),
        fields=HERE,
    ),
    "a seat beyond the limit, tolerated": Way(
        "TOO_MANY_MACHINES",
        True,
        act="activate",
        rules={"max_machines": 2, "overage": "1.5x"},
        arrange=activated("a", "b"),
        fields=HERE,
    ),
    "validated with a seat too many, tolerated": Way(
        "TOO_MANY_MACHINES", True, rules={"overage": "always"}, arrange=crowded, fields=HERE
    ),
    "validated with a seat too many": Way("TOO_MANY_MACHINES", False, arrange=crowded, fields=HERE),
    "no uses left": Way("USES_EXHAUSTED", False, rules={"max_uses": 2}, arrange=used),
    "more uses than are left": Way(
        "USES_EXHAUSTED", False, act="usage", rules={"max_uses": 3}, arrange=used, fields={"increment": 2}
    ),
    "a check-in that ends the overdue": Way(
        "VALID",
        True,
        act="check-in",
        rules={"check_in_days": 7},
        columns=lambda: {"checked_in_at": time.time() - 8 * DAY},
    ),
    "a deactivation of a banned license": Way(
        "VALID", True, act="deactivate", columns=lambda: {"status": "banned"}, fields=HERE
    ),
    "a checkout": Way("VALID", True, act="checkout", arrange=activated("here"), fields=HERE),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_code_is_reached_signed_and_logged(node: Node, name: str) -> None:
    way = WAYS[name]
    sold = sell(node.database, way.rules, **way.columns())
    way.arrange(node, sold)
    before = len(events_of(node.database, sold))
    answer = node.call(way.act, sold.key, **way.fields)
    assert (answer.status, answer.code, answer.body["valid"]) == (200, way.code, way.valid), answer.body
    assert answer.claims is not None
    assert (answer.claims["code"], answer.claims["valid"], answer.claims["act"]) == (way.code, way.valid, way.act)
    *_, last = logged = events_of(node.database, sold)
    assert len(logged) == before + 1
    assert (last["event_id"], last["type"]) == (answer.claims["jti"], way.act)
    assert (last["data"]["code"], last["data"]["valid"]) == (way.code, way.valid)


def test_the_ways_above_reach_every_code() -> None:
    assert {way.code for way in WAYS.values()} | {"NOT_FOUND"} == set(Code)
    assert {way.act for way in WAYS.values()} == set(Act)


@pytest.mark.parametrize("act", sorted(Act))
def test_an_unknown_key_is_not_found_by_any_call_and_leaves_no_event(node: Node, act: str) -> None:
    fields = HERE if act not in ("check-in", "usage") else {}
    answer = node.call(act, f"nobody-has-this-{act}", **fields)
    assert (answer.status, answer.code, answer.body["license"], answer.lease) == (200, "NOT_FOUND", None, None)
    assert answer.claims is not None
    assert (answer.claims["sub"], answer.claims["uses"], answer.claims["lic_exp"]) == (None, None, None)


# -- the verdict ----------------------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def test_a_verdict_binds_key_machine_nonce_call_and_body(node: Node) -> None:
    expires = int(time.time()) + 1000
    rules = {"max_machines": 3, "max_uses": 5, "entitlements": ["pro"]}
    sold = sell(node.database, rules, expires_at=expires)
    node.call("activate", sold.key, fingerprint="here", name="Desk")
    node.call("usage", sold.key, increment=2)
    body = json.dumps({"key": sold.key, "nonce": "n" * 16, "fingerprint": "here", "product": PRODUCT}).encode()
    answer = node.send("validate", body)
    claims = dict(answer.claims or {})
    moving = {name: claims.pop(name) for name in ("iat", "exp", "as_of", "jti")}
    assert claims == {
        "iss": "protecao",
        "act": "validate",
        "nonce": "n" * 16,
        "rh": digest(body),
        "sub": sold.id,
        "kh": digest(sold.key.encode()),
        "fp": "here",
        "aud": PRODUCT,
        "code": "VALID",
        "valid": True,
        "lic_exp": expires,
        "ent": ["pro"],
        "uses": 2,
        "max_uses": 5,
        "node": node.runtime.node.id,
        "epoch": 1,
    }
    assert moving["exp"] == moving["iat"] + 300
    assert abs(moving["iat"] - time.time()) < 30
    assert moving["iat"] - 30 < moving["as_of"] <= moving["iat"]
    assert {name: answer.body[name] for name in ("valid", "code", "detail", "nonce", "durability")} == {
        "valid": True,
        "code": "VALID",
        "detail": "is valid",
        "nonce": "n" * 16,
        "durability": "ledger",
    }
    assert answer.body["license"] == {
        "id": sold.id,
        "status": "active",
        "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
        "product": PRODUCT,
        "entitlements": ["pro"],
        "max_machines": 3,
        "machines": 1,
        "uses": 2,
        "max_uses": 5,
    }
    assert {name: answer.body["machine"][name] for name in ("fingerprint", "name")} == {
        "fingerprint": "here",
        "name": "Desk",
    }
    assert answer.body["node"] == {"id": node.runtime.node.id, "role": "primary", "epoch": 1}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"act": "activate"}, Reason.ACT),
        ({"nonce": "o" * 16}, Reason.NONCE),
        ({"body": b"{}"}, Reason.RH),
        ({"key": "KEY-another"}, Reason.KH),
        ({"fingerprint": "there"}, Reason.FP),
        ({"fingerprint": None}, Reason.FP),
        ({"product": "other"}, Reason.AUD),
    ],
)
def test_a_verdict_is_good_for_no_other_call(node: Node, changed: dict[str, Any], reason: Reason) -> None:
    sold = sell(node.database)
    node.call("activate", sold.key, fingerprint="here")
    body = json.dumps({"key": sold.key, "nonce": "n" * 16, "fingerprint": "here"}).encode()
    verdict = node.send("validate", body).body["verdict"]
    call = {"act": "validate", "nonce": "n" * 16, "body": body, "key": sold.key, "fingerprint": "here"}
    verifier = Verifier(node.jwks())
    verifier.verify_verdict(verdict, **{"product": PRODUCT, **call})
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify_verdict(verdict, **{"product": PRODUCT, **call, **changed})
    assert refused.value.reason is reason


def test_the_audience_is_the_licenses_product_and_else_the_one_sent(node: Node) -> None:
    sold = sell(node.database)
    mismatched = node.call("validate", sold.key, product="other")
    unknown = node.call("validate", "nobody-knows-this-key", product="other")
    assert [(mismatched.claims or {})["aud"], (unknown.claims or {})["aud"]] == [PRODUCT, "other"]


def test_two_answers_never_share_an_id(node: Node) -> None:
    sold = sell(node.database)
    assert len({(node.call("validate", sold.key).claims or {})["jti"] for _ in range(5)}) == 5


def test_the_request_id_does_not_tie_calls_that_may_be_repeated(node: Node) -> None:
    """Validate, ping, check-in and checkout with one request id are events of their own each time."""
    sold = sell(node.database)
    node.call("activate", sold.key, fingerprint="here")
    for act in ("validate", "ping", "checkout"):
        for _ in range(2):
            node.call(act, sold.key, fingerprint="here", request_id="the-same-id")
    node.call("check-in", sold.key, request_id="the-same-id")
    assert len(events_of(node.database, sold)) == 8


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
    activated("old", "older")(node, sold)
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
        "kh": digest(sold.key.encode()),
        "fp": "here",
        "aud": PRODUCT,
        "ent": ["pro"],
        "lic_exp": expires,
        "grace_until": expires + 3 * DAY,
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
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify_verdict(answer.body["token"], act="activate", nonce="n" * 16, body=body, **offline)
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
        (604_800, 99_999_999, 604_800),
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
    assert (lease["exp"], lease["lic_exp"], lease["grace_until"]) == (expires, expires, None)


def test_in_its_grace_a_license_still_gives_tokens_that_end_with_it(node: Node) -> None:
    expired = int(time.time()) - 100
    sold = sell(node.database, GRACE, expires_at=expired)
    lease = lease_of(node.call("activate", sold.key, fingerprint="here"))
    assert (lease["exp"], lease["grace_until"]) == (expired + 3 * DAY, expired + 3 * DAY)
