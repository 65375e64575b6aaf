"""What was tried against a node's calls with the shipped secrets or a token of few scopes, and must stay refused."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.admin.token_store import Scope
from tests.support.admin import Admin, admin_on
from tests.support.nodes import ADMIN_TOKEN, API_KEY, Node, Sold, license_row, sell, signed

#: What a hostile call may take; a call that backtracks or collides takes minutes.
_SOON_S = 5.0
_ANY_ID = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on("sqlite", request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


@pytest.fixture
def sold(admin: Admin) -> Sold:
    return sell(admin.node.database)


def admin_routes(node: Node) -> list[tuple[str, str]]:
    """Every method and path that needs a token, with any id in it."""
    found = []
    for rule in node.app.url_map.iter_rules():
        path = rule.rule.replace("<id>", _ANY_ID).replace("<action>", "ban")
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            if asked(node, method, path, Authorization="Bearer x").status_code == 401:
                found.append((method, path))
    return [(method, path) for method, path in found if "/v1/" in path or path in ("/stats", "/metrics")]


def asked(node: Node, method: str, path: str, **headers: str) -> TestResponse:
    """One call with an empty JSON object, which is looked at after who calls."""
    body = None if method in ("GET", "DELETE") else b"{}"
    sent = {} if body is None else {"Content-Type": "application/json"}
    return node.http.open(path, method=method, data=body, headers={**sent, **headers})


def is_refused(status: int) -> bool:
    return 400 <= status < 500


# -- admin authentication -------------------------------------------------------------------------------------------


def test_each_admin_route_is_closed_to_every_token_but_one_of_its_scope(admin: Admin) -> None:
    routes = [route for route in admin_routes(admin.node) if not route[1].startswith(_CLIENT)]
    assert len(routes) > 20
    tokens = {scope: admin.resources.create_token(scope, [scope])["token"] for scope in Scope}
    for method, path in routes:
        opened = []
        for scope, token in tokens.items():
            if asked(admin.node, method, path, Authorization=f"Bearer {token}").status_code != 403:
                opened.append(scope)
        assert len(opened) == 1, (method, path, opened)
        for headers in ({}, {"X-API-Key": API_KEY, **signed(method, path, b"")}):
            assert asked(admin.node, method, path, **headers).status_code == 401, (method, path)


_CLIENT = tuple(f"/v1/{act}" for act in ("validate", "activate", "deactivate", "ping", "check-in", "usage", "checkout"))


@pytest.mark.parametrize("method", ["HEAD", "PUT", "TRACE", "CONNECT", "BREW", "OPTIONS", "get", "PROPFIND"])
def test_no_other_method_is_a_way_around_a_token(admin: Admin, method: str) -> None:
    for path in ("/v1/licenses", f"/v1/licenses/{_ANY_ID}", "/v1/events", "/stats", "/metrics", "/v1/nodes"):
        response = admin.node.http.open(path, method=method)
        assert is_refused(response.status_code) or (method == "OPTIONS" and response.data == b""), (path, response)
        assert b"license" not in response.data or response.content_type == "application/problem+json"


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_a_header_that_names_another_method_changes_none(admin: Admin, sold: Sold, header: str) -> None:
    reader = Admin(admin.node, admin.resources.create_token("reader", ["licenses:read"])["token"])
    response = reader.send("GET", f"/licenses/{sold.id}", **{header: "DELETE"})
    assert (response.status_code, response.json["id"]) == (200, sold.id)  # type: ignore[index]
    assert reader.problem("POST", f"/licenses/{sold.id}", {}, **{header: "GET"})["code"] == "METHOD_NOT_ALLOWED"
    assert license_row(admin.node.database, sold)["status"] == "active"


@pytest.mark.parametrize(
    "path",
    [
        "//v1/licenses", "/v1//licenses", "/v1/licenses/", "/v1/licenses//", "/V1/licenses", "/v1/Licenses",
        "/v1%2flicenses",
        "/v1/licen%73es", "/%76%31/licenses", "/v1/./licenses", "/v1/x/../licenses", "/livez/../v1/licenses",
        "/v1/validate/../licenses", "/v1/licenses%00", "/v1/licenses;a=b", "/v1/licenses%20", "/v1/licenses%2f",
        "/v1\\licenses", "/v1/licenses.json", "/docs/../v1/licenses", "/v1/%2e/licenses", "/v1/licenses%3flimit=1",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_is_a_way_around_a_token(admin: Admin, path: str) -> None:
    client = {"X-API-Key": API_KEY, **signed("GET", path, b"")}
    for headers in ({}, client):
        response = admin.node.http.get(path, headers=headers)
        assert response.status_code in (401, 404, 308, 405), response.data
        if response.status_code == 308:
            assert response.headers["Location"].startswith(("http://localhost/v1/", "/v1/"))


_BASIC = base64.b64encode(f"admin:{ADMIN_TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    "header",
    [
        "", " ", "Bearer", "Bearer ", f"Bearer{ADMIN_TOKEN}", f"Bearer\t{ADMIN_TOKEN}x", f"Bearer {ADMIN_TOKEN}, x",
        ADMIN_TOKEN,
        f"Bearer Bearer {ADMIN_TOKEN}", f"Basic {_BASIC}", f"Digest {ADMIN_TOKEN}", f"Token {ADMIN_TOKEN}",
        f"Bearer {ADMIN_TOKEN[:-1]}", f"Bearer {ADMIN_TOKEN.upper()}", f'Bearer "{ADMIN_TOKEN}"', "Bearer null",
        f"Bearer {base64.b64encode(ADMIN_TOKEN.encode()).decode()}", f"Bearer {API_KEY}", "Bearer \x00", "Bearer é",
    ],
)  # fmt: skip
def test_no_other_form_of_authorization_is_a_token(admin: Admin, header: str) -> None:
    assert admin.problem("GET", "/licenses", Authorization=header)["code"] == "TOKEN_INVALID"


def test_a_token_is_read_nowhere_but_in_its_header(admin: Admin) -> None:
    http = admin.node.app.test_client()
    for path in (f"/v1/licenses?token={ADMIN_TOKEN}", f"/v1/licenses?access_token={ADMIN_TOKEN}"):
        assert http.get(path).status_code in (400, 401)
    http.set_cookie("token", ADMIN_TOKEN)
    http.set_cookie("Authorization", f"Bearer {ADMIN_TOKEN}")
    elsewhere = {
        "X-API-Key": ADMIN_TOKEN,
        "X-Authorization": f"Bearer {ADMIN_TOKEN}",
        "Proxy-Authorization": ADMIN_TOKEN,
    }
    assert http.get("/v1/licenses", headers=elsewhere).status_code == 401


# -- the signature of clients' calls --------------------------------------------------------------------------------


def checked(node: Node, sold: Sold, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Status and code of a check whose headers are replaced."""
    body = body or json.dumps({"key": sold.key, "nonce": "n" * 16}).encode()
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    answer = node.send("validate", body, headers=sent)
    return answer.status, answer.code


@pytest.mark.parametrize("skew", [-302, 302])
def test_a_second_beyond_the_window_is_beyond_it(admin: Admin, sold: Sold, skew: int) -> None:
    body = json.dumps({"key": sold.key, "nonce": "n" * 16}).encode()
    headers = signed("POST", "/v1/validate", body, now=admin.node.now() + skew)
    assert admin.node.send("validate", body, headers=headers).code == "TIMESTAMP_SKEWED"


@pytest.mark.parametrize(
    "form",
    [
        "{} ",
        " {}x",
        "+{}",
        "0x{:x}",
        "{}.0",
        "{}e0",
        "{}_0",
        "{},{}",
        "-{}",
        "{}\u0661",
        "\u0661{}",
        "nan",
        "inf",
        "{}L",
    ],
)
def test_a_timestamp_has_one_form(admin: Admin, sold: Sold, form: str) -> None:
    timestamp = form.format(admin.node.now(), admin.node.now()).encode().decode("latin-1")
    status, code = checked(admin.node, sold, X_Timestamp=timestamp)
    assert (status, code in ("SIGNATURE_INVALID", "TIMESTAMP_SKEWED")) == (401, True)


@pytest.mark.parametrize("many", [1, 5_000])
def test_signatures_that_are_none_are_many_or_lack_their_padding_let_nobody_in(
    admin: Admin, sold: Sold, many: int
) -> None:
    body = json.dumps({"key": sold.key, "nonce": "n" * 16}).encode()
    headers = signed("POST", "/v1/validate", body, now=admin.node.now())
    good = headers["X-Signature"]
    began = time.monotonic()
    for wrong in (good.rstrip("="), good + "=", good.replace("v1", "v2"), good.replace("v1,", "v1, "), "v1,"):
        sent = {**headers, "X-Signature": " ".join([wrong] * many)}
        assert admin.node.send("validate", body, headers=sent).code == "SIGNATURE_INVALID"
    assert time.monotonic() - began < _SOON_S


@pytest.mark.parametrize(
    "request_id", ["aaaaaaaa.1", "a.b.c.d.e.f", "aaaaaaaa\x00", "aaaaaaaa POST", "ééééééééé", "a" * 65]
)
def test_what_is_signed_can_be_taken_apart_in_one_way_only(admin: Admin, sold: Sold, request_id: str) -> None:
    sent = request_id.encode().decode("latin-1")
    body = json.dumps({"key": sold.key, "nonce": "n" * 16}).encode()
    answer = admin.node.send("validate", body, request_id=sent)
    assert answer.code in ("MALFORMED", "SIGNATURE_INVALID")
    # Moved from the one to the other, the text is the same.
    headers = signed("POST", "/v1/validate", body, request_id="abcdefgh.1", now=admin.node.now())
    moved = {**headers, "X-Request-Id": "abcdefgh", "X-Timestamp": f"1.{headers['X-Timestamp']}"}
    assert admin.node.send("validate", body, headers=moved).status == 401


# -- input ----------------------------------------------------------------------------------------------------------

_SMALL = '{"key": "%s", "nonce": "nnnnnnnnnnnnnnnn", %s}'
_INPUT = {
    "60,000 digits": '"increment": ' + "9" * 60_000,
    "1e400": '"increment": 1e400',
    "minus zero": '"increment": -0',
    "a fraction": '"increment": 1.5',
    "leading zeros": '"increment": 007',
    "hexadecimal": '"increment": 0x10',
    "a text": '"increment": "1"',
    "true": '"increment": true',
    "Infinity": '"increment": Infinity',
    "depth": '"client": ' + '{"a":' * 10_000 + "1" + "}" * 10_000,
    "NUL": '"name": "a\\u0000b"',
    "a surrogate": '"name": "\\udfff"',
    "bad UTF-8": '"name": "\udcff"',
    "CR LF": '"name": "a\\r\\nb"',
    "a version of dots": '"version": "' + "1." * 20_000 + '1"',
    "a version of letters": '"version": "' + "1a" * 20_000 + '"',
    "members that are none": ", ".join(f'"{"Ez" * (i % 7)}FY{i}": 1' for i in range(3_000)),
}


@pytest.mark.parametrize("name", _INPUT)
def test_input_that_is_made_to_hurt_is_malformed_and_costs_little(admin: Admin, sold: Sold, name: str) -> None:
    body = (_SMALL % (sold.key, _INPUT[name])).encode("utf-8", "surrogateescape")
    began = time.monotonic()
    for act in ("usage", "activate", "validate"):
        answer = admin.node.send(act, body)
        assert answer.code in ("MALFORMED", "BODY_TOO_LARGE"), answer.body
    assert time.monotonic() - began < _SOON_S
    assert license_row(admin.node.database, sold)["uses"] == 0


def test_a_version_and_a_specifier_that_make_a_parser_backtrack_cost_little(admin: Admin) -> None:
    began = time.monotonic()
    for text in (
        "1!" * 30_000,
        "1" + "0" * 30_000 + "rc",
        ">=1," * 8_000,
        "~=1" + ".0" * 20_000 + "x",
        "1+" + "a." * 20_000,
    ):
        body = {"product": "any", "name": "any", "versions": text}
        assert is_refused(admin.send("POST", "/policies", body).status_code)
    assert time.monotonic() - began < _SOON_S


@pytest.mark.parametrize(
    "id",
    [
        "'",
        "1%20OR%201=1",
        "%00",
        "..",
        "%2e%2e%2f",
        "%25",
        "_",
        "*",
        "{}",
        "$(id)",
        "%0d%0aX-A:%201",
        "a" * 5_000,
        "%FF",
    ],
)
def test_an_id_is_a_text_and_nothing_else(admin: Admin, sold: Sold, id: str) -> None:
    for plural in ("products", "policies", "licenses", "machines"):
        for method in ("GET", "DELETE"):
            response = admin.node.http.open(
                f"/v1/{plural}/{id}", method=method, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
            )
            assert response.status_code in (400, 404, 405, 308), response.data
            assert "X-A" not in response.headers
    assert license_row(admin.node.database, sold)["status"] == "active"


@pytest.mark.parametrize("field", ["name", "email", "external_ref"])
def test_a_line_break_in_a_text_of_an_admin_is_refused(admin: Admin, field: str) -> None:
    policy = admin.policy()
    for text in ("a\r\nBcc: b@example.org", "a\nb", "a\rb", "a\x00b", "a\u2028b\x0b"):
        problem = admin.problem("POST", "/licenses", {"policy": policy["id"], field: text})
        assert (problem["code"], problem["field"]) == ("MALFORMED", field)


_METADATA = {
    "a long text": {"a": "x" * 70_000},
    "a long name": {"a" * 70_000: 1},
    "many": {str(i): i for i in range(9_000)},
    "a list": [],
    "a text": "a",
    "a number": 1,
    "NaN": {"a": math.nan},
    "Infinity": {"a": math.inf},
}


@pytest.mark.parametrize("value", _METADATA.values(), ids=_METADATA)
def test_metadata_has_its_bounds(admin: Admin, value: Any) -> None:
    response = admin.send("POST", "/licenses", {"policy": admin.policy()["id"], "metadata": value})
    assert response.status_code in (400, 413), response.data


# -- many at once, and pages ----------------------------------------------------------------------------------------


def test_100_threads_with_one_key_keep_no_other_customer(admin: Admin) -> None:
    attacked, customer = sell(admin.node.database, {"max_machines": 1}), sell(admin.node.database)

    def attack(number: int) -> str:
        node = Node(admin.node.app)
        return node.call(("activate", "validate")[number % 2], attacked.key, fingerprint=f"pc-{number}").code

    with ThreadPoolExecutor(100) as pool:
        begun = [pool.submit(attack, number) for number in range(200)]
        codes = [admin.node.call("validate", customer.key).code for _ in range(20)]
        told = [each.result() for each in begun]
    assert codes == ["VALID"] * 20
    assert told[::2].count("VALID") == 1
    assert set(told[::2]) <= {"VALID", "MACHINE_LIMIT_EXCEEDED", "OVERLOADED"}


def test_names_with_markup_are_on_no_page(admin: Admin) -> None:
    before = admin.node.http.get("/docs").data
    admin.product(name="<script>alert(1)</script>")
    admin.policy(name="</title><img src=x onerror=alert(1)>")
    assert admin.node.http.get("/docs").data == before
    assert b"alert(1)" not in before


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://localhost",
        "https://shop.example.evil.example",
        "file://",
        "*",
        "https://",
    ],
)
def test_an_origin_that_was_not_named_may_read_nothing(admin: Admin, sold: Sold, origin: str) -> None:
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for path in ("/v1/validate", "/v1/licenses", "/stats"):
        for response in (admin.node.http.options(path, headers=asks), admin.node.http.post(path, headers=asks)):
            assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118
