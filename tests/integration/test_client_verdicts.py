"""Every verdict code over HTTP on both ledgers, and what is signed with it."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from api.ledger.migrate import ledger_id
from api.licensing import DAY, Act, Code
from api.signing import Reason, TokenInvalid, Verifier
from tests.support.nodes import (
    PRODUCT,
    Node,
    Sold,
    change_license,
    change_machine,
    events_of,
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
    assert not answer.claims.keys() & {"sub", "uses", "lic_exp", "th"}


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
    answer = node.send("validate", body, request_id="the-call-s-id")
    claims = dict(answer.claims or {})
    moving = {name: claims.pop(name) for name in ("iat", "exp", "as_of", "jti")}
    assert claims == {
        "iss": "protecao",
        "act": "validate",
        "nonce": "n" * 16,
        "rid": "the-call-s-id",
        "rh": digest(body),
        "sub": sold.id,
        "kh": sold.key_hash,
        "fp": "here",
        "aud": PRODUCT,
        "th": digest(answer.body["token"].encode()),
        "led": ledger_id(node.database),
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
        ({"request_id": "another-id"}, Reason.RID),
        ({"request_id": None}, Reason.RID),
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
    verdict = node.send("validate", body, request_id="the-call-s-id").body["verdict"]
    about = {"act": "validate", "nonce": "n" * 16, "request_id": "the-call-s-id", "body": body}
    call = {**about, "key": sold.key, "fingerprint": "here"}
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
