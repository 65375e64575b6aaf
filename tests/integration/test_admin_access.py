"""Tokens and signing keys over HTTP: shown once, moved in order, and never more than the caller may do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from api.admin.token_store import Scope
from api.ledger import tables
from api.signing import generate, parse_signing_keys
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows, signing_key
from tests.support.processes import until

_SPARE = generate()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    folder = tmp_path_factory.mktemp("node")
    with admin_on(request.param, request, folder, SIGNING_KEY=signing_key() + _SPARE.pem()) as admin:
        yield admin


def token(admin: Admin, *scopes: str, name: str = "a colleague", **headers: str) -> Json:
    return admin.ok("POST", "/tokens", {"name": name, "scopes": list(scopes)}, **headers)


def statuses(admin: Admin) -> dict[str, str]:
    return {key["kid"]: key["status"] for key in admin.ok("GET", "/keys")["items"]}


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_made_listed_and_revoked(admin: Admin) -> None:
    response = admin.send("POST", "/tokens", {"name": "ci", "scopes": ["licenses:read", "stats:read"]})
    made = response.get_json()
    assert (response.status_code, response.headers["Location"]) == (201, f"/v1/tokens/{made['id']}")
    assert made["scopes"] == ["stats:read", "licenses:read"]
    secret = made.pop("token")
    assert admin.ok("GET", f"/tokens/{made['id']}") == made
    assert made in admin.ok("GET", "/tokens")["items"]
    assert secret not in admin.send("GET", "/tokens").text
    caller = Admin(admin.node, secret)
    assert caller.send("GET", "/licenses").status_code == 200
    assert admin.send("DELETE", f"/tokens/{made['id']}").status_code == 204
    assert caller.problem("GET", "/licenses")["code"] == "TOKEN_INVALID"
    assert admin.problem("DELETE", f"/tokens/{made['id']}")["code"] == "RESOURCE_NOT_FOUND"
    assert made not in admin.ok("GET", "/tokens")["items"]


def test_a_retry_is_given_the_same_token_and_nothing_stored_holds_it(admin: Admin) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    before = len(admin.ok("GET", "/tokens")["items"])
    made = token(admin, "stats:read", **key)
    assert token(admin, "stats:read", **key) == made
    assert token(admin, "stats:read")["token"] != made["token"]
    assert len(admin.ok("GET", "/tokens")["items"]) == before + 2
    assert Admin(admin.node, made["token"]).send("GET", "/nodes").status_code == 200
    kept = [str(row) for table in tables.metadata.tables.values() for row in rows(admin.node.database, table)]
    assert not [row for row in kept if made["token"] in row or made["token"].removeprefix("admin_") in row]


def test_a_token_gives_and_takes_no_scope_that_it_has_not(admin: Admin) -> None:
    lesser = Admin(admin.node, token(admin, "tokens:write", "licenses:read")["token"])
    assert token(lesser, "licenses:read")["scopes"] == ["licenses:read"]
    refused = lesser.problem("POST", "/tokens", {"name": "n", "scopes": ["licenses:read", "licenses:write"]})
    assert (refused["code"], refused["scope"]) == ("SCOPE_MISSING", "licenses:write")
    greater = token(admin, *Scope)
    assert lesser.problem("DELETE", f"/tokens/{greater['id']}")["code"] == "SCOPE_MISSING"
    assert greater["id"] in [one["id"] for one in admin.ok("GET", "/tokens")["items"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "n"}, "scopes"),
        ({"name": "", "scopes": ["stats:read"]}, "name"),
        ({"name": "a\x00", "scopes": ["stats:read"]}, "name"),
        ({"name": "n", "scopes": []}, "scopes"),
        ({"name": "n", "scopes": ["all"]}, "scopes[0]"),
        ({"name": "n", "scopes": ["stats:read"], "token": "mine"}, "token"),
    ],
)
def test_what_is_wrong_with_a_new_token_is_named(admin: Admin, body: Json, field: str) -> None:
    assert admin.problem("POST", "/tokens", body)["field"] == field


# -- signing keys -----------------------------------------------------------------------------------------------------


def test_keys_are_added_activated_and_retired_and_the_node_follows(admin: Admin) -> None:
    first, held, foreign = parse_signing_keys(signing_key())[0].kid, _SPARE.kid, generate()
    assert statuses(admin) == {held: "next", first: "current"}
    added = admin.ok("POST", "/keys", {"jwk": foreign.public_jwk})
    assert (added["kid"], added["status"], added["held"], added["jwk"]) == (
        foreign.kid, "next", False, foreign.public_jwk,
    )  # fmt: skip
    assert admin.problem("POST", "/keys", {"jwk": foreign.public_jwk})["code"] == "CONFLICT"
    refused = admin.problem("POST", f"/keys/{foreign.kid}/actions/activate")
    assert refused["code"] == "CONFLICT"
    assert "does not hold" in refused["detail"]
    assert admin.ok("POST", f"/keys/{held}/actions/activate")["status"] == "current"
    until(lambda: admin.node.jwks()["keys"][0]["kid"] == held, "the node signs with the new key")
    assert admin.problem("POST", f"/keys/{held}/actions/retire")["code"] == "CONFLICT"
    assert admin.ok("POST", f"/keys/{foreign.kid}/actions/retire", {})["status"] == "revoked"
    assert admin.problem("POST", f"/keys/{foreign.kid}/actions/activate", {"force": True})["code"] == "CONFLICT"
    assert admin.ok("POST", f"/keys/{first}/actions/activate", {"force": False})["status"] == "current"
    assert statuses(admin) == {first: "current", held: "previous", foreign.kid: "revoked"}
    types = [event["type"] for event in rows(admin.node.database, tables.events)]
    assert [type for type in types if type.startswith("key.")] == [
        "key.added", "key.activated", "key.retired", "key.activated",
    ]  # fmt: skip


def test_a_retry_of_a_change_of_keys_is_answered_as_it_was(admin: Admin) -> None:
    key, jwk = {"Idempotency-Key": uuid.uuid4().hex}, generate().public_jwk
    first = admin.ok("POST", "/keys", {"jwk": jwk}, **key)
    admin.ok("POST", f"/keys/{first['kid']}/actions/retire")
    assert admin.ok("POST", "/keys", {"jwk": jwk}, **key) == first


def test_a_private_key_is_refused_and_what_is_no_key_is_named(admin: Admin) -> None:
    public = generate().public_jwk
    for jwk, words in (
        ({**public, "d": "AAAA"}, "private"),
        ({**public, "kid": "mine"}, "thumbprint"),
        ({**public, "x": "AAAA"}, "P-256"),
        ({"kty": "RSA"}, "P-256"),
        ({}, "P-256"),
        ({**public, "kid": 7}, "kid"),
    ):
        found = admin.problem("POST", "/keys", {"jwk": jwk})
        assert (found["code"], found["field"]) == ("MALFORMED", "jwk")
        assert words in found["detail"]
    assert admin.problem("POST", "/keys", {})["field"] == "jwk"
    for id in ("no-such-key", "%00", "a" * 200):
        for action in ("activate", "retire"):
            assert admin.problem("POST", f"/keys/{id}/actions/{action}")["code"] == "RESOURCE_NOT_FOUND"
