"""Bad input: each kind has its clear problem, and nothing is ever a 500."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.licensing import Act
from tests.support.nodes import (
    API_KEY,
    SHARED_SECRET,
    Node,
    events_of,
    license_row,
    node_on,
    sell,
    signed,
)
from tests.support.problems import malformed, problem

LIMIT = 64 * 1024
NONCE = "n" * 16
KEY = "nobody-has-this-key"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on(request.param, request, tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def quick(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """For what never reaches the ledger: one is enough."""
    secrets = f"{SHARED_SECRET},another-shared-secret"
    folder = tmp_path_factory.mktemp("node")
    with node_on("sqlite", request, folder, SHARED_SECRET=secrets, API_KEY=f"{API_KEY},another-api-key-too") as node:
        yield node


# -- the body as a whole --------------------------------------------------------------------------------------------

_NO_OBJECT = {
    "nothing": b"",
    "no JSON": b"key=value",
    "half of it": b'{"key": "' + KEY.encode(),
    "two of them": b'{"key":"%s","nonce":"%s"}{}' % (KEY.encode(), NONCE.encode()),
    "a list": b"[]",
    "null": b"null",
    "a text": b'"text"',
    "a number": b"7",
    "NaN": b'{"key": NaN}',
    "single quotes": b"{'key': 1}",
    "a comment": b'/* no */ {"key": "12345678"}',
    "invalid UTF-8": b'{"key": "\xff\xfe\xff\xfe\xff\xfe\xff\xfe"}',
    "UTF-16": '{"key": "12345678"}'.encode("utf-16"),
    "a lone surrogate": b'{"key": "\\ud800 and more"}',
    "half a pair": b'{"key": "\\ud83d\\u0041 and more"}',
    "a surrogate in UTF-8": b'{"key": "\xed\xa0\x80 and more"}',
    "a NUL byte": b'{"key": "12345678\x00"}',
    "lists without end": b"[" * 60_000,
    "a deep list in client": b'{"key":"12345678","nonce":"%s","client":{"a":%s%s}}'
    % (NONCE.encode(), b"[" * 30_000, b"]" * 30_000),
    "objects without end": b'{"client":' * 6_000,
}


@pytest.mark.parametrize("name", _NO_OBJECT)
def test_a_body_that_is_no_json_object_is_malformed(quick: Node, name: str) -> None:
    malformed(quick.send("validate", _NO_OBJECT[name]), "$")


def test_64_kib_are_taken_and_one_byte_more_is_not(quick: Node) -> None:
    body = json.dumps({"key": KEY, "nonce": NONCE}).encode()
    assert quick.send("validate", body.ljust(LIMIT)).code == "NOT_FOUND"
    problem(quick.send("validate", body.ljust(LIMIT + 1)).response, 413, "BODY_TOO_LARGE")
    problem(quick.send("validate", b"x" * LIMIT * 20).response, 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 20, 413)])
def test_a_body_without_a_stated_length_is_limited_alike(quick: Node, size: int, status: int) -> None:
    body = json.dumps({"key": KEY, "nonce": NONCE}).encode().ljust(size)
    response = quick.http.post(
        "/v1/validate",
        input_stream=io.BytesIO(body),
        headers={**signed("POST", "/v1/validate", body), "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.status_code == status, response.data
    if status == 413:
        problem(response, 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    "type_", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", ";", "é"]
)
def test_any_other_content_type_is_refused(quick: Node, type_: str) -> None:
    body = json.dumps({"key": KEY, "nonce": NONCE}).encode()
    problem(quick.send("validate", body, headers={"Content-Type": type_}).response, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("type_", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_by_any_spelling_is_taken(quick: Node, type_: str) -> None:
    body = json.dumps({"key": KEY, "nonce": NONCE}).encode()
    assert quick.send("validate", body, headers={"Content-Type": type_}).code == "NOT_FOUND"


# -- fields ---------------------------------------------------------------------------------------------------------

_FULL: dict[str, dict[str, Any]] = {
    "validate": {"product": "p", "fingerprint": "f", "version": "1.0", "entitlements": ["e"]},
    "activate": {"fingerprint": "f", "name": "n", "platform": "p", "product": "p", "version": "1.0"},
    "deactivate": {"fingerprint": "f"},
    "ping": {"fingerprint": "f"},
    "check-in": {},
    "usage": {"increment": 2},
    "checkout": {"fingerprint": "f", "ttl": 60},
}
_BASE = {"key": KEY, "nonce": NONCE, "client": {"app": "x"}}
_WRONG_TYPES = (7, 1.5, True, [], {}, "")


def body_of(act: str, **changes: Any) -> bytes:
    return json.dumps({**_BASE, **_FULL[act], **changes}).encode()


def without(act: str, field: str) -> bytes:
    return json.dumps({name: value for name, value in {**_BASE, **_FULL[act]}.items() if name != field}).encode()


@pytest.mark.parametrize("act", sorted(Act))
def test_a_full_body_is_taken(quick: Node, act: str) -> None:
    assert quick.send(act, body_of(act)).code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("act", "field"),
    [
        *((act, field) for act in Act for field in ("key", "nonce")),
        *((act, "fingerprint") for act in ("activate", "deactivate", "ping", "checkout")),
    ],
)
def test_a_missing_field_is_named(quick: Node, act: str, field: str) -> None:
    malformed(quick.send(act, without(act, field)), field)


@pytest.mark.parametrize("act", sorted(Act))
@pytest.mark.parametrize("field", ["unknown", "Key", "keys", "", "é\u0000", "__proto__"])
def test_an_unknown_field_is_named(quick: Node, act: str, field: str) -> None:
    answer = quick.send(act, body_of(act, **{field: 1}))
    assert field in problem(answer.response, 400, "MALFORMED")["field"]


@pytest.mark.parametrize("act", sorted(Act))
def test_a_field_of_a_wrong_type_is_named(quick: Node, act: str) -> None:
    for field, good in {**_BASE, **_FULL[act]}.items():
        for wrong in (*_WRONG_TYPES, None):
            if isinstance(wrong, type(good)) and not isinstance(wrong, bool) and wrong != "":
                continue
            answer = quick.send(act, body_of(act, **{field: wrong}))
            if wrong is None and answer.status == 200:
                assert field not in ("key", "nonce", "increment")  # null is as good as nothing where that is
                continue
            if wrong == "" and field in ("name", "platform"):
                assert answer.status == 200
                continue
            malformed(answer, field)


_BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "key": ("1234567", "k" * 129, "k" * 10_000, "with\u0000nul!", "with\nbreak", "with\u0085break", "with\x7fdelete"),
    "nonce": ("n" * 15, "n" * 65, "with space and more", "é" * 16, f"{NONCE}\n", "n" * 15 + "="),
    "fingerprint": ("f" * 129, "nul\u0000", "tab\t", "\x1b[31m"),
    "product": ("p" * 65, "nul\u0000"),
    "version": ("v" * 65, "one", "1.0 beta gamma", "1..0", "1.0\u0000", "1.0\n", ">=1"),
    "name": ("n" * 201, "nul\u0000", "line\nbreak"),
    "platform": ("p" * 201, "nul\u0000"),
    "increment": (0, -1, -(2**63), 1_000_001, 2**31, 2**63, 2**64, 10**400, 1.0, 1.5, 1e3, "1", True, None, [1]),
    "ttl": (-(2**63), 2**63, 10**400, 1.5, "60", True),
    "client": ({"app": "x" * 1100}, {"many": ["x"] * 400}, "text", ["list"]),
}


@pytest.mark.parametrize("field", _BAD_VALUES)
def test_a_value_out_of_bounds_is_named(quick: Node, field: str) -> None:
    acts = [act for act in Act if field in {**_BASE, **_FULL[act]}]
    for act, value in itertools.product(acts, _BAD_VALUES[field]):
        malformed(quick.send(act, body_of(act, **{field: value})), field)


@pytest.mark.parametrize("entitlements", [["e"] * 101, [""], ["e" * 65], [7], ["nul\u0000"], "e", {"e": 1}, [["e"]]])
def test_faulty_entitlements_are_named(quick: Node, entitlements: Any) -> None:
    answer = quick.send("validate", body_of("validate", entitlements=entitlements))
    assert problem(answer.response, 400, "MALFORMED")["field"].startswith("entitlements")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "k" * 8),
        ("key", "k" * 128),
        ("key", "ключ-日本-\U0001f511"),
        ("fingerprint", "é" * 128),
        ("fingerprint", "\u202e\ufffd"),
        ("version", "1!2.0.0a1.post2.dev3+local"),
        ("client", {"anything": [None, 1e300, {"at": "all\u0000"}]}),
        ("client", {"app": "x" * 1000}),
        ("client", {}),
        ("client", None),
        ("product", None),
        ("nonce", "-_" * 32),
    ],
)
def test_values_at_their_bounds_are_taken(node: Node, field: str, value: Any) -> None:
    assert node.send("validate", body_of("validate", **{field: value})).code == "NOT_FOUND"


def test_a_field_that_comes_twice_counts_as_it_came_last(quick: Node) -> None:
    body = f'{{"key":"first-key","nonce":"{NONCE}","key":"{KEY}"}}'.encode()
    answer = quick.send("validate", body)
    assert (answer.claims or {})["kh"] == (quick.call("validate", KEY).claims or {})["kh"]


_SQL = (
    "'; DROP TABLE licenses; --",
    "' OR '1'='1",
    '" OR ""="',
    "%s %(asks)s %% {0} :now $1 ?",
    "\\'; SELECT pg_sleep(60); --",
    "x'); DELETE FROM events; COMMIT; --",
    "\\x00\\u0000\\",
)


def test_sql_in_every_text_is_a_text(node: Node) -> None:
    sold = sell(node.database)
    fields = {"fingerprint": 128, "name": 200, "platform": 200, "product": 64}
    for text in _SQL:
        for act in ("validate", "activate", "ping", "checkout", "deactivate"):
            mine = {name: text for name in fields if name in _FULL[act] and name != "product"}
            answer = node.call(act, sold.key, **mine)
            assert (answer.status, answer.body["valid"]) == (200, act != "validate" or answer.code == "VALID")
        assert node.call("validate", sold.key, product=text).code == "PRODUCT_SCOPE_MISMATCH"
        assert node.call("validate", sold.key, entitlements=[text]).code == "ENTITLEMENTS_MISSING"
        assert node.call("validate", text, product=text, fingerprint=text).code == "NOT_FOUND"
        assert node.call("usage", sold.key, client={text: text}).code == "VALID"
        malformed(node.call("validate", sold.key, version=text), "version")
        malformed(node.call("validate", text, nonce=text), "nonce")
    logged = [
        event["data"]["call"].get("name") for event in events_of(node.database, sold) if event["type"] == "activate"
    ]
    assert logged == list(_SQL)
    assert license_row(node.database, sold)["uses"] == len(_SQL)


# -- routes and methods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
@pytest.mark.parametrize("act", sorted(Act))
def test_another_method_is_told_the_right_one(quick: Node, act: str, method: str) -> None:
    response = quick.http.open(f"/v1/{act}", method=method)
    problem(response, 405, "METHOD_NOT_ALLOWED")
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_head_is_not_allowed_and_options_tells_what_is(quick: Node) -> None:
    head, options = (quick.http.open("/v1/validate", method=method) for method in ("HEAD", "OPTIONS"))
    assert (head.status_code, set(head.headers["Allow"].split(", "))) == (405, {"POST", "OPTIONS"})
    assert (options.status_code, set(options.headers["Allow"].split(", "))) == (200, {"POST", "OPTIONS"})


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/v1",
        "/v1/",
        "/v1/validat",
        "/v1/validate/more",
        "/V1/VALIDATE",
        "//v1/validate",
        "/v1//validate",
        "/v1/validate%00",
        "/v1/%c3%28",
        "/static/x",
        "/../etc/passwd",
        "/" + "x" * 5000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route_is_a_problem_like_any_other(quick: Node, method: str, path: str) -> None:
    problem(quick.http.open(path, method=method), 404, "ROUTE_NOT_FOUND")
