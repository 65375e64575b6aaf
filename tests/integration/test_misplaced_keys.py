"""A license key in a wrong place (a member's name, a query, a path, a header) is in no error and in no log line."""

from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from api import logs
from api.admin.actions import ACTIONS
from api.admin.bulk import BadRow, ImportedLicense
from api.admin.kinds import Kind
from api.admin.licenses import Licenses
from api.admin.schemas import BODIES
from api.checks.schemas import BODIES as CLIENT_BODIES
from api.checks.schemas import KEY_LENGTHS
from api.licensing import Act
from tests.support.admin import Admin, admin_on
from tests.support.nodes import signed

#: Our own form, as customers type it, a vendor's, a short one, and one that would end msgspec's quotes.
KEYS = [
    "9QK4TD-PM07XW-2H5ZRA-V8N1CE-G3YJ6B",
    "9qk4td-pm07xw-2h5zra-v8n1ce-g3yj6b",
    "vendor key 2024/77",
    "8letters",
    "ab`cd` - at `$.efghijklmn`",
]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


@pytest.fixture(params=KEYS)
def key(request: pytest.FixtureRequest) -> Iterator[str]:
    """A key that must be in nothing that is logged meanwhile, at any level and in either format."""
    lines = io.StringIO()
    handlers = [logging.StreamHandler(lines), logging.StreamHandler(lines)]
    handlers[0].setFormatter(logs.JsonFormatter())
    handlers[1].setFormatter(logs.TextFormatter())
    logger = logging.getLogger(logs.ROOT)
    level = logger.level
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield request.param
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)
    assert is_free_of(lines.getvalue(), request.param)


def is_free_of(text: str, key: str) -> bool:
    """Whether a text has the key in no spelling that a reader could turn back."""
    spellings = {key, quote(key), quote(key, safe=""), json.dumps(key)[1:-1], key.replace(" ", "+")}
    return not any(spelling in text for spelling in spellings)


def refused(response: TestResponse, key: str, allowed: tuple[int, ...] = ()) -> None:
    """It is a problem without the key in head or body; `allowed`: statuses besides, which say nothing of it either."""
    assert response.status_code in (*range(400, 500), *allowed), response.text
    assert is_free_of(response.text + str(response.headers), key), response.text


@pytest.mark.parametrize("act", Act)
def test_a_client_that_sends_a_key_as_a_name_is_refused_without_it(admin: Admin, key: str, act: Act) -> None:
    body = {"key": "nobody-has-this", "nonce": "n" * 16, "fingerprint": "f"}
    for sent in (
        {key: 1},
        {key: {key: key}},
        {**body, key: key},
        {**body, key: None},
        [key],
        key,
        {"client": {key: 1}},
    ):
        refused(admin.node.send(act, json.dumps(sent).encode()).response, key)
    for raw in (key.encode(), f'{{"{key}'.encode(), f"{{'{key}': 1}}".encode(), json.dumps({key: 1}).encode("utf-16")):
        refused(admin.node.send(act, raw).response, key)


@pytest.mark.parametrize("act", Act)
def test_a_key_in_the_place_of_another_value_is_refused_without_it(admin: Admin, key: str, act: Act) -> None:
    good = {"key": "nobody-has-this", "nonce": "n" * 16, "fingerprint": "f"}
    fields = CLIENT_BODIES[act].__struct_fields__
    good = {name: value for name, value in good.items() if name in fields}
    for name in fields:
        # In the right form, what stands there is what the caller meant.
        for value in (f"{key}\u0000", [[key]], [{key: key}], {key: {key: [key] * 300}}, key * 40):
            answer = admin.node.send(act, json.dumps(good | {name: value}).encode())
            if name == "client" and answer.status == 200:
                assert is_free_of(answer.response.text, key)
            else:
                refused(answer.response, key)
    for name in set(fields) & {"version", "increment", "ttl", "client"}:
        refused(admin.node.send(act, json.dumps(good | {name: key}).encode()).response, key)


def test_a_key_in_path_query_or_head_of_a_clients_call_is_not_said_again(admin: Admin, key: str) -> None:
    body, http = json.dumps({"key": "nobody-has-this", "nonce": "n" * 16}).encode(), admin.node.http
    there = quote(key, safe="")
    for path in (
        f"/v1/{there}",
        f"/{there}",
        f"/v1/validate/{there}",
        f"/{there}/v1/validate",
        f"/v1/validate;{there}",
    ):
        refused(http.post(path, data=body, headers=signed("POST", path, body)), key)
    for query in (f"?{there}", f"?{there}=1", f"?key={there}", f"?{there}&{there}"):
        refused(http.post(f"/v1/validate{query}", data=body, headers=signed("POST", "/v1/validate", body)), key)
    head = signed("POST", "/v1/validate", body)
    for name in ("X-API-Key", "X-Timestamp", "X-Signature", "Content-Type"):
        refused(http.post("/v1/validate", data=body, headers=head | {name: key}), key)
    for name in ("Authorization", "Accept", "Origin", "If-None-Match", "Cookie", "X-Forwarded-For", "Referer"):
        refused(http.post("/v1/validate", data=b"{}", headers=head | {name: key}), key)
    refused(http.open("/v1/validate", method="".join(filter(str.isalnum, key))), "".join(filter(str.isalnum, key)))
    for path in ("/livez", "/readyz", "/docs", "/.well-known/jwks.json"):
        refused(http.get(f"{path}?{there}={there}", headers={"If-None-Match": key, "Accept": key}), key, (200,))


def test_a_key_in_the_place_of_an_id_is_refused_without_it(admin: Admin, key: str) -> None:
    body = {"key": key, "nonce": "n" * 16}
    refused(admin.node.send("validate", json.dumps(body).encode(), request_id=key).response, key)
    refused(admin.node.send("validate", json.dumps(body | {"nonce": key}).encode()).response, key)
    if key in KEYS[:2]:  # of our own form: wherever it stands, whatever else is wrong
        for name in ("X-Request-Id", "Idempotency-Key"):
            refused(admin.send("POST", "/products", {"code": "never", "name": 1}, **{name: key}), key)
        refused(admin.node.http.post("/v1/validate", data=b"{}", headers={"X-Request-Id": key}), key)
        bare = key.replace("-", "")
        refused(admin.node.http.get("/nowhere", headers={"X-Request-Id": bare}), bare)


@pytest.mark.parametrize("kind", Kind)
def test_an_admin_that_sends_a_key_as_a_name_or_in_a_query_is_refused_without_it(
    admin: Admin, key: str, kind: Kind
) -> None:
    there, path = quote(key, safe=""), f"/{kind.plural}"
    for body in ({key: 1}, {key: {key: key}}, {"name": "n", key: key}, [key], key):
        refused(admin.send("POST", path, body), key)
        refused(admin.send("PATCH", f"{path}/nobody", body), key)
    for query in (f"?{there}", f"?{there}=1", f"?limit={there}", f"?cursor={there}", f"?{there}=1&{there}=2"):
        refused(admin.send("GET", f"{path}{query}"), key)
        refused(admin.send("POST", f"{path}{query}", {}), key)
        refused(admin.send("GET", f"{path}/nobody{query}"), key)
    for method in ("GET", "PATCH", "DELETE"):
        refused(admin.send(method, f"{path}/{there}", {} if method == "PATCH" else None), key)
    for name in ("Authorization", "Idempotency-Key", "Content-Type"):
        sent = {name: f"Bearer {key}" if name == "Authorization" else f"{key};"}
        refused(admin.send("POST", path, {}, **sent), key)


@pytest.mark.parametrize("kind", Kind)
def test_an_admins_key_in_the_place_of_another_value_is_refused_without_it(admin: Admin, key: str, kind: Kind) -> None:
    for name in BODIES[kind].__struct_fields__:
        for value in (f"{key}\u0000", [[key]], [{key: key}], {key: "x" * 17_000}, key * 60):
            refused(admin.send("POST", f"/{kind.plural}", {name: value}), key)
    for name in ("overage", "cull", "expiry_basis", "expiry_strategy", "max_machines", "floating", "versions"):
        refused(admin.send("POST", "/policies", {"product": "p", "name": "n", name: key}), key)
    for name in ("policy", "email", "expires_at", "max_uses", "metadata", "entitlements"):
        refused(admin.send("POST", "/licenses", {"policy": "nobody", name: key}), key)


def test_a_key_in_an_action_or_a_nodes_place_is_refused_without_it(admin: Admin, key: str) -> None:
    there, license = quote(key, safe=""), admin.license()
    for action in ACTIONS:
        path = f"/licenses/{license['id']}/actions/{action}"
        refused(admin.send("POST", path, {key: 1}), key)
        refused(admin.send("POST", path, {"days": key}), key)
        refused(admin.send("POST", f"/licenses/{there}/actions/{action}"), key)
    refused(admin.send("POST", f"/licenses/{license['id']}/actions/{there}"), key)
    for action in ("switchover", "promote", there):
        for body in ({"to": key}, {key: "n"}, {"to": [key]}):
            refused(admin.send("POST", f"/nodes/actions/{action}", body), key)
    for query in ("since", "until", "license", "type", there):
        response = admin.send("GET", f"/events?{query}={there}")
        refused(response, key, (200,))
    refused(admin.send("GET", f"/events?limit={there}", Accept="text/csv"), key)


def test_a_file_of_keys_without_a_header_is_refused_without_them(admin: Admin, key: str) -> None:
    policy = admin.policy()["id"]
    for row in (
        {key: key},
        {"policy": policy, key: "x"},
        {"policy": policy, "status": key},
        {"policy": key, "key": key},
    ):
        with pytest.raises(BadRow) as caught:
            admin.resources.import_licenses([row])
        assert is_free_of(f"{caught.value} {caught.value.field} {caught.value.detail}", key)
    for name in set(ImportedLicense.__struct_fields__) - {"key", "name", "external_ref"}:
        with pytest.raises(BadRow) as caught:
            admin.resources.import_licenses(
                [{"policy": policy, "key": f"own-{uuid.uuid4().hex}", name: f"{key}\u0000"}]
            )
        assert is_free_of(str(caught.value), key)


def test_a_key_in_a_path_is_not_logged_where_something_breaks(
    admin: Admin, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken for a test")

    monkeypatch.setattr(Licenses, "get", broken)
    monkeypatch.setattr("api.admin.store.plausible_id", lambda _, it: it)
    refused(admin.send("GET", f"/licenses/{quote(key, safe='')}"), key, (404, 500))


def test_names_that_can_be_no_key_are_said_and_near_ones_are_guessed(admin: Admin) -> None:
    shortest, _ = KEY_LENGTHS
    short: Any = "x" * (shortest - 1)
    assert admin.problem("POST", "/products", {short: 1})["field"] == short
    found = admin.problem("POST", "/policies", {"require_fingerprints": True})
    assert (found["field"], "is require_fingerprint meant?" in found["detail"]) == ("require_fingerprints", True)
    found = admin.problem("POST", "/policies", {"entitlement2": []})
    assert (found["field"], "is entitlements meant?" in found["detail"]) == ("ent... (12 characters)", True)
    assert admin.problem("GET", "/licenses?external_reff=1")["field"] == "external_reff"
