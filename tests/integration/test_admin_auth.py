"""Who may call as an admin: tokens, scopes, limits on failures only, and the order of refusals."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.admin.token_store import Scope
from api.ledger import tables
from api.ledger.errors import LedgerUnavailable
from api.problems import Malformed, Problem
from api.web.admin_auth import AdminAuth
from api.web.rate_limit import FailureLimiter
from tests.support.admin import Admin, admin_on
from tests.support.nodes import ADMIN_TOKEN, API_KEY, SHARED_SECRET, rows, signed


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


#: A call of each scope.
CALLS = {
    Scope.STATS_READ: ("GET", "/nodes", None),
    Scope.LICENSES_READ: ("GET", "/licenses", None),
    Scope.LICENSES_WRITE: ("POST", "/products", {}),
    Scope.NODES_WRITE: ("POST", "/nodes/actions/promote", {}),
    Scope.TOKENS_WRITE: ("GET", "/tokens", None),
    Scope.KEYS_WRITE: ("POST", "/keys", {}),
}
ANY_ID = "00000000-0000-7000-8000-000000000000"
PLURALS = ("products", "policies", "licenses", "machines")
EVERY_CALL = [
    *(("GET", f"/{plural}", None) for plural in PLURALS),
    *(("POST", f"/{plural}", {}) for plural in PLURALS),
    *(("GET", f"/{plural}/{ANY_ID}", None) for plural in PLURALS),
    *(("PATCH", f"/{plural}/{ANY_ID}", {}) for plural in PLURALS),
    *(("DELETE", f"/{plural}/{ANY_ID}", None) for plural in PLURALS),
    ("POST", f"/licenses/{ANY_ID}/actions/ban", None),
    ("GET", "/events", None),
    ("GET", "/nodes", None),
    ("POST", "/nodes/actions/promote", {"to": "x"}),
    ("POST", "/nodes/actions/switchover", {"to": "x"}),
    ("POST", "/licenses/import", {"rows": [{}]}),
    ("GET", "/licenses/export", None),
    ("GET", "/findings", None),
    ("GET", "/tokens", None),
    ("POST", "/tokens", {}),
    ("GET", f"/tokens/{ANY_ID}", None),
    ("DELETE", f"/tokens/{ANY_ID}", None),
    ("GET", "/keys", None),
    ("POST", "/keys", {}),
    ("POST", f"/keys/{ANY_ID}/actions/activate", None),
    ("POST", f"/keys/{ANY_ID}/actions/retire", None),
]


@pytest.mark.parametrize(("method", "path", "body"), EVERY_CALL)
def test_no_admin_call_is_open(admin: Admin, method: str, path: str, body: object) -> None:
    client_headers = {"X-API-Key": API_KEY, **signed(method, f"/v1{path}", b"")}
    for header in (
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {ADMIN_TOKEN}",
        ADMIN_TOKEN,
        f"Bearer {ADMIN_TOKEN} x",
    ):
        response = admin.send(method, path, body, **{**client_headers, "Authorization": header})
        assert (response.status_code, response.json["code"]) == (401, "TOKEN_INVALID")  # type: ignore[index]
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("token", [API_KEY, SHARED_SECRET, "ä", "\xff" * 10, "x" * 6000, "'; DROP TABLE tokens; --"])
def test_nothing_else_is_taken_for_a_token(admin: Admin, token: str) -> None:
    assert admin.problem("GET", "/licenses", Authorization=f"Bearer {token}")["code"] == "TOKEN_INVALID"


def test_the_scheme_is_read_whatever_its_case(admin: Admin) -> None:
    assert admin.send("GET", "/licenses", Authorization=f"bEARER  {ADMIN_TOKEN}").status_code == 200


@pytest.mark.parametrize("granted", Scope)
@pytest.mark.parametrize("needed", Scope)
def test_a_token_opens_its_scope_and_no_other(admin: Admin, granted: Scope, needed: Scope) -> None:
    made = admin.resources.create_token("one scope", [granted])
    response = Admin(admin.node, made["token"]).send(*CALLS[needed])
    if granted is needed:
        assert response.status_code in (200, 400)
    else:
        assert (response.status_code, response.json["code"], response.json["scope"]) == (403, "SCOPE_MISSING", needed)  # type: ignore[index]


def test_a_token_is_shown_once_and_kept_as_a_hash(admin: Admin) -> None:
    made = admin.resources.create_token("ci", ["stats:read", "licenses:read"])
    token = made.pop("token")
    assert made in admin.resources.tokens()
    assert made["scopes"] == ["stats:read", "licenses:read"]
    everything = [str(row) for table in tables.metadata.tables.values() for row in rows(admin.node.database, table)]
    assert not [row for row in everything if token in row]


def test_a_revoked_token_stops_at_once_on_its_node_and_cannot_be_revoked_again(admin: Admin) -> None:
    made = admin.resources.create_token("short-lived", ["licenses:read"])
    caller = Admin(admin.node, made["token"])
    assert caller.send("GET", "/licenses").status_code == 200
    admin.resources.revoke_token(made["id"])
    assert caller.problem("GET", "/licenses")["code"] == "TOKEN_INVALID"
    assert made["id"] not in [token["id"] for token in admin.resources.tokens()]
    for id in (made["id"], ANY_ID, "\x00"):
        with pytest.raises(Problem) as refused:
            admin.resources.revoke_token(id)
        assert refused.value.code == "RESOURCE_NOT_FOUND"
    types = [event["type"] for event in rows(admin.node.database, tables.events)]
    assert types[-2:] == ["token.created", "token.revoked"]


@pytest.mark.parametrize(
    ("name", "scopes", "field"),
    [("", ["stats:read"], "name"), ("a\x00", ["stats:read"], "name"), ("a", [], "scopes"), ("a", ["all"], "scopes")],
)
def test_a_token_needs_a_name_and_scopes_that_exist(admin: Admin, name: str, scopes: list[str], field: str) -> None:
    with pytest.raises(Malformed) as refused:
        admin.resources.create_token(name, scopes)
    assert refused.value.members["field"] == field


def test_refusals_come_in_the_contracts_order(admin: Admin) -> None:
    """Each step puts right what the one before was refused for."""
    reader = admin.resources.create_token("reader", ["licenses:read"])["token"]
    license = admin.license()
    admin.ok("POST", f"/licenses/{license['id']}/actions/ban")
    wrong, good = {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {admin.token}"}
    text = {"Content-Type": "text/plain"}
    huge, bad, fine = b"x" * 70_000, b"{", b"{}"
    steps = [
        ("POST", "/nowhere", huge, {**wrong, **text}, "ROUTE_NOT_FOUND"),
        ("PUT", f"/licenses/{ANY_ID}", huge, {**wrong, **text}, "METHOD_NOT_ALLOWED"),
        ("PATCH", f"/licenses/{ANY_ID}", huge, {**wrong, **text}, "BODY_TOO_LARGE"),
        ("PATCH", f"/licenses/{ANY_ID}", bad, {**wrong, **text}, "UNSUPPORTED_MEDIA_TYPE"),
        ("PATCH", f"/licenses/{ANY_ID}", bad, wrong, "TOKEN_INVALID"),
        ("PATCH", f"/licenses/{ANY_ID}", bad, {"Authorization": f"Bearer {reader}"}, "SCOPE_MISSING"),
        ("PATCH", f"/licenses/{ANY_ID}", bad, good, "MALFORMED"),
        ("PATCH", f"/licenses/{ANY_ID}", fine, good, "RESOURCE_NOT_FOUND"),
        ("POST", f"/licenses/{license['id']}/actions/reinstate", fine, good, "CONFLICT"),
    ]
    for method, path, body, headers, code in steps:
        assert admin.problem(method, path, body, **headers)["code"] == code


def test_a_token_that_may_only_write_reads_nothing_by_it(admin: Admin) -> None:
    policy, ref = admin.policy(), f"payment-{uuid.uuid4().hex}"
    license = admin.license(policy, external_ref=ref, email="a@b.de")
    writer = Admin(admin.node, admin.resources.create_token("w", ["licenses:write"])["token"])
    both = Admin(admin.node, admin.resources.create_token("rw", ["licenses:write", "licenses:read"])["token"])
    taken, path = {"policy": policy["id"], "external_ref": ref}, f"/licenses/{license['id']}"
    assert writer.problem("POST", "/licenses", taken)["license"] == {"id": license["id"]}
    assert both.problem("POST", "/licenses", taken)["license"]["email"] == "a@b.de"
    other = writer.ok("POST", "/licenses", {"policy": policy["id"]})
    assert other.keys() == {"id", "key"}
    found = writer.problem("PATCH", f"/licenses/{other['id']}", {"external_ref": ref})
    assert (found["code"], found["license"]) == ("CONFLICT", {"id": license["id"]})
    for sent in ({}, {"name": "x"}):
        assert writer.ok("PATCH", path, sent) == {"id": license["id"]}
        assert both.ok("PATCH", path, sent)["email"] == "a@b.de"
    for action in ("suspend", "reinstate", "check-in"):
        assert writer.ok("POST", f"{path}/actions/{action}") == {"id": license["id"]}
    again = {"Idempotency-Key": uuid.uuid4().hex}
    reissued = [writer.ok("POST", f"{path}/actions/reissue", **again) for _ in range(2)]
    assert (reissued[0].keys(), reissued[1]) == ({"id", "key"}, reissued[0])
    product = writer.ok("POST", "/products", {"code": f"p-{uuid.uuid4().hex[:8]}", "name": "n"})
    assert writer.ok("PATCH", f"/products/{product['id']}", {}) == product
    assert writer.ok("PATCH", f"/policies/{policy['id']}", {}) == {"id": policy["id"]}
    machine = writer.ok("POST", "/machines", {"license": license["id"], "fingerprint": "f"})
    assert writer.ok("PATCH", f"/machines/{machine['id']}", {"name": "n"}) == machine
    assert product.keys() == machine.keys() == {"id"}


def test_the_nodes_that_beat_are_listed_and_commanded_by_name(admin: Admin) -> None:
    me = admin.node.runtime.node.id
    assert [node["id"] for node in admin.ok("GET", "/nodes")["items"]] == [me]
    for action in ("switchover", "promote"):
        assert admin.problem("POST", f"/nodes/actions/{action}", {"to": "nobody"})["code"] == "RESOURCE_NOT_FOUND"
        assert admin.problem("POST", f"/nodes/actions/{action}", {"to": me})["code"] == "CONFLICT"
        for body in ({}, {"to": ""}, {"to": 1}, {"to": "a\x00"}, {"to": "n", "force": True}):
            assert admin.problem("POST", f"/nodes/actions/{action}", body)["code"] == "MALFORMED"


def test_answers_are_kept_by_nobody_and_open_to_no_other_origin(admin: Admin) -> None:
    response = admin.send("GET", "/licenses", Origin="https://example.org")
    assert response.headers["Cache-Control"] == "no-store"
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


# -- limits ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Admin]:
    with admin_on("sqlite", request, tmp_path, RATE_LIMIT="3/minute", CORS_ORIGINS="https://example.org") as admin:  # type: ignore[arg-type]
        yield admin


def test_too_many_wrong_tokens_are_limited_and_a_good_one_never_is(limited: Admin) -> None:
    good = limited.resources.create_token("good", ["licenses:read"])["token"]
    codes = [limited.problem("GET", "/licenses", Authorization=f"Bearer wrong-{i}")["code"] for i in range(5)]
    assert codes == ["TOKEN_INVALID"] * 3 + ["RATE_LIMITED"] * 2
    response = limited.send("GET", "/licenses", Authorization="")
    assert (response.status_code, int(response.headers["Retry-After"]) > 0) == (429, True)
    assert limited.send("GET", "/licenses", Authorization=f"Bearer {good}").status_code == 200
    assert limited.send("GET", "/licenses").status_code == 200
    assert limited.problem("POST", "/products", {}, Authorization=f"Bearer {good}")["code"] == "SCOPE_MISSING"


def test_other_origins_may_make_clients_calls_only(limited: Admin) -> None:
    response = limited.send("GET", "/licenses", Origin="https://example.org")
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def _refused(auth: AdminAuth, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    environ = EnvironBuilder(headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.1"}).get_environ()
    try:
        auth.require(Request(environ), Scope.LICENSES_READ)
    except (Problem, LedgerUnavailable) as error:
        return error.code if isinstance(error, Problem) else "LEDGER_UNAVAILABLE"
    return ""


def test_wrong_tokens_ask_a_ledger_that_fails_once_a_second(limited: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = limited.node.runtime
    auth, now, asked = (
        AdminAuth(runtime, FailureLimiter(runtime.state.failures, runtime.settings.rate_limit)),
        [1e6],
        [],
    )

    def fail() -> dict[str, frozenset[str]]:
        asked.append(now[0])
        raise LedgerUnavailable("away")

    runtime.jobs.stop()
    monkeypatch.setattr(auth, "_read", fail)
    monkeypatch.setattr(runtime.clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(runtime.ledger.database, "answered_at", now[0])
    assert [_refused(auth, "wrong") for _ in range(3)] == ["LEDGER_UNAVAILABLE"] * 3
    assert (len(asked), _refused(auth, ADMIN_TOKEN)) == (1, "")
    now[0] += 1
    assert (_refused(auth, "wrong"), len(asked)) == ("LEDGER_UNAVAILABLE", 2)
    now[0] += 100
    assert (_refused(auth, "wrong"), len(asked)) == ("LEDGER_UNAVAILABLE", 2)


def test_a_limited_address_does_not_ask_the_ledger_about_wrong_tokens(
    limited: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = limited.node.runtime
    auth = AdminAuth(runtime, FailureLimiter(runtime.state.failures, runtime.settings.rate_limit))
    assert [_refused(auth, f"wrong-{number}") for number in range(4)] == ["TOKEN_INVALID"] * 3 + ["RATE_LIMITED"]
    monkeypatch.setattr(auth, "_tokens", lambda: pytest.fail("asked"))
    assert _refused(auth, "wrong") == "RATE_LIMITED"
