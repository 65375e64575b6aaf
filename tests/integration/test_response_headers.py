"""What every answer says in its head, whichever way it was made: by Flask, without Flask, by the server itself."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator

import pytest
from werkzeug.test import TestResponse

from api.problems import PROBLEMS, TITLES, Problem, body_of
from api.server.application import PRIVATE
from api.server.problem import broken, malformed, overloaded
from api.web.problem_responses import headers_of
from tests.support.admin import Admin, admin_on
from tests.support.nodes import signed
from tests.support.problems import problem

PUBLIC = ("/docs", "/openapi.json", "/.well-known/jwks.json")
KINDS = ("products", "policies", "licenses", "machines")
BODY = b'{"key": "nobody-has-this-key", "nonce": "nnnnnnnnnnnnnnnn"}'


@pytest.fixture(scope="module")
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on("sqlite", request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def calls(admin: Admin) -> list[tuple[str, str]]:
    """Every method of every route, by a path that fits it, and what is no route."""
    found = [("GET", "/nowhere"), ("PUT", "/v1/validate"), ("TRACE", "/stats"), ("GET", "/v1/licenses/")]
    for rule in admin.node.app.url_map.iter_rules():
        values = {"id": "an-id", "action": "suspend" if "licenses" in rule.rule else "promote"}
        path = admin.node.app.url_map.bind("localhost").build(rule.endpoint, {n: values[n] for n in rule.arguments})
        found += [(method, path) for method in rule.methods or ()]
    return found


def test_nobody_keeps_an_answer_or_guesses_its_type_but_public_pages_may_be_kept(admin: Admin) -> None:
    kept = set()
    for method, path in calls(admin):
        for headers in ({}, {"Authorization": f"Bearer {admin.token}"}):
            answer = admin.node.http.open(path, method=method, headers=headers)
            assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"], (method, path)
            [cached] = answer.headers.getlist("Cache-Control")
            if cached != "no-store":
                kept.add((method, path, answer.status_code, cached))
    assert kept == {(method, path, 200, "public, max-age=300") for method in ("GET", "HEAD") for path in PUBLIC}


def test_an_export_is_kept_by_nobody(admin: Admin) -> None:
    answer = admin.send("GET", "/events", Accept="text/csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert set(PRIVATE) <= set(answer.headers)


# -- 401, 415 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "scheme", "headers"),
    [
        ("API_KEY_INVALID", "ApiKey", {"X-API-Key": "wrong"}),
        ("SIGNATURE_INVALID", "Signature", {"X-Signature": "v1,AAAA"}),
        ("SIGNATURE_INVALID", "Signature", {"X-Timestamp": "no number"}),
        ("TIMESTAMP_SKEWED", "Signature", {"X-Timestamp": "1000000000"}),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_a_client_that_is_refused_is_named_the_scheme(
    admin: Admin, code: str, scheme: str, headers: dict[str, str], content_type: str
) -> None:
    sent = {**signed("POST", "/v1/validate", BODY, now=admin.node.now()), **headers, "Content-Type": content_type}
    answer = admin.node.http.post("/v1/validate", data=BODY, headers=sent)
    problem(answer, 401, code)
    assert answer.headers.getlist("WWW-Authenticate")[0].split()[0] == scheme


def test_an_admin_who_is_refused_is_named_the_scheme(admin: Admin) -> None:
    for path in ("/licenses", "/nodes", "/events"):
        answer = admin.send("GET", path, Authorization="Bearer wrong")
        problem(answer, 401, "TOKEN_INVALID")
        assert answer.headers.getlist("WWW-Authenticate") == ["Bearer"]


def of_client(admin: Admin, body: bytes, coding: str) -> TestResponse:
    sent = signed("POST", "/v1/validate", body, now=admin.node.now())
    return admin.node.http.post("/v1/validate", data=body, headers={**sent, "Content-Encoding": coding})


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip", "x"])
def test_a_body_that_is_encoded_is_refused_wherever_bodies_are_taken(admin: Admin, coding: str) -> None:
    license, body = admin.license(), gzip.compress(b"{}")
    answers = [of_client(admin, gzip.compress(BODY), coding)]
    for method, path in (
        ("POST", "/licenses"),
        ("PATCH", f"/licenses/{license['id']}"),
        ("DELETE", f"/licenses/{license['id']}"),
        ("POST", f"/licenses/{license['id']}/actions/ban"),
        ("POST", "/nodes/actions/promote"),
    ):
        answers.append(admin.send(method, path, body, **{"Content-Encoding": coding}))
    for answer in answers:
        problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
        assert (answer.headers["Accept"], answer.headers["Accept-Encoding"]) == ("application/json", "identity")
    assert admin.ok("GET", f"/licenses/{license['id']}")["status"] == "active"


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_body_that_says_that_it_is_not_encoded_is_taken(admin: Admin, coding: str) -> None:
    assert of_client(admin, BODY, coding).status_code == 200
    product = {"code": uuid.uuid4().hex, "name": "A product"}
    assert admin.send("POST", "/products", product, **{"Content-Encoding": coding}).status_code == 201


# -- 201 ------------------------------------------------------------------------------------------------------------


def body_of_new(admin: Admin, kind: str) -> dict[str, object]:
    policy = admin.policy()
    bodies: dict[str, dict[str, object]] = {
        "products": {"code": f"p-{uuid.uuid4().hex}", "name": "A product"},
        "policies": {"product": policy["product"], "name": "A policy"},
        "licenses": {"policy": policy["id"]},
        "machines": {"license": admin.license(policy)["id"], "fingerprint": "here"},
    }
    return bodies[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_is_found_where_the_answer_says(admin: Admin, kind: str) -> None:
    body, key = body_of_new(admin, kind), {"Idempotency-Key": uuid.uuid4().hex}
    writer = Admin(admin.node, admin.resources.create_token("writer", ["licenses:write"])["token"])
    made = admin.send("POST", f"/{kind}", body, **key)
    by_writer = writer.send("POST", f"/{kind}/", body_of_new(admin, kind))
    for answer in (made, admin.send("POST", f"/{kind}", body, **key), by_writer):
        assert answer.status_code == 201
        found = admin.node.http.get(answer.headers["Location"], headers={"Authorization": f"Bearer {admin.token}"})
        assert found.get_json()["id"] == json.loads(answer.data)["id"]
    assert made.headers["Location"] == f"/v1/{kind}/{json.loads(made.data)['id']}"


def test_what_makes_nothing_names_no_place(admin: Admin) -> None:
    license = admin.license()
    for method, path, body in (
        ("PATCH", f"/licenses/{license['id']}", {"name": "N"}),
        ("POST", f"/licenses/{license['id']}/actions/reissue", {}),
        ("POST", "/licenses", {}),
        ("GET", f"/licenses/{license['id']}", None),
    ):
        assert "Location" not in admin.send(method, path, body).headers


# -- problems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", PROBLEMS)
def test_the_title_of_a_problem_is_its_statuss_phrase_and_it_always_has_a_detail(code: str) -> None:
    status, detail = PROBLEMS[code]
    body = json.loads(body_of(Problem(code), "a-request"))
    assert (body["type"], body["title"], body["status"]) == ("about:blank", TITLES[status], status)
    assert body["detail"] == detail != TITLES[status]


def test_the_servers_own_problems_look_as_the_applications_do() -> None:
    for reply in (overloaded("a-request"), broken("a-request"), malformed("it is cut", "a-request")):
        body = json.loads(reply.body)
        same = Problem(body["code"], body["detail"])
        assert body == json.loads(body_of(same, "a-request"))
        assert (reply.status, reply.headers) == (same.status, headers_of(same))
