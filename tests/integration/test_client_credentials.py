"""Who may call: keys, times and signatures that do not fit, and which of two problems is told first."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from werkzeug.test import TestResponse

from tests.support.nodes import (
    API_KEY,
    PRODUCT,
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


# -- credentials ----------------------------------------------------------------------------------------------------


def good_body() -> bytes:
    return json.dumps({"key": KEY, "nonce": NONCE}).encode()


@pytest.mark.parametrize(
    "api_key", ["", "wrong", API_KEY[:-1], f"{API_KEY} ", f"{API_KEY},another-api-key-too", "é" * 20]
)
def test_a_wrong_or_missing_api_key_is_refused(quick: Node, api_key: str) -> None:
    answer = quick.send("validate", good_body(), headers={"X-API-Key": api_key})
    problem(answer.response, 401, "API_KEY_INVALID")


def test_any_of_several_api_keys_is_taken(quick: Node) -> None:
    for api_key in (API_KEY, "another-api-key-too"):
        assert quick.send("validate", good_body(), headers={"X-API-Key": api_key}).code == "NOT_FOUND"


@pytest.mark.parametrize("skew", [-310, 310, -86_400, 10**9, -(10**9)])
def test_a_timestamp_that_is_off_either_way_is_told_the_time(quick: Node, skew: int) -> None:
    headers = signed("POST", "/v1/validate", good_body(), now=quick.now() + skew)
    body = problem(quick.send("validate", good_body(), headers=headers).response, 401, "TIMESTAMP_SKEWED")
    assert abs(body["ts"] - time.time()) < 30


@pytest.mark.parametrize("skew", [-290, 290])
def test_a_timestamp_within_five_minutes_is_taken(quick: Node, skew: int) -> None:
    headers = signed("POST", "/v1/validate", good_body(), now=quick.now() + skew)
    assert quick.send("validate", good_body(), headers=headers).code == "NOT_FOUND"


def test_signed_again_with_the_time_that_was_told_a_call_is_taken(quick: Node) -> None:
    headers = signed("POST", "/v1/validate", good_body(), now=0)
    told = quick.send("validate", good_body(), headers=headers).body["ts"]
    again = signed("POST", "/v1/validate", good_body(), now=told)
    assert quick.send("validate", good_body(), headers=again).code == "NOT_FOUND"


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Timestamp", "X-Signature"])
def test_a_missing_header_is_an_invalid_signature(quick: Node, header: str) -> None:
    body = problem(quick.send("validate", good_body(), headers={header: ""}).response, 401, "SIGNATURE_INVALID")
    assert header in body["detail"]


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Signature"])
def test_a_skewed_timestamp_is_told_before_a_missing_header(quick: Node, header: str) -> None:
    headers = signed("POST", "/v1/validate", good_body(), now=quick.now() - 1000) | {header: ""}
    problem(quick.send("validate", good_body(), headers=headers).response, 401, "TIMESTAMP_SKEWED")


@pytest.mark.parametrize("timestamp", ["now", "-5", "1.5", "٣", "1e9", " ", "9" * 400, "0x10"])
def test_a_timestamp_that_is_none_is_an_invalid_signature(quick: Node, timestamp: str) -> None:
    answer = quick.send("validate", good_body(), headers={"X-Timestamp": timestamp.encode().decode("latin-1")})
    problem(answer.response, 401, "SIGNATURE_INVALID")


def over(node: Node, **other: Any) -> dict[str, str]:
    """Headers with a signature over something else than what is sent."""
    call = {"method": "POST", "path": "/v1/validate", "body": good_body(), "now": node.now(), **other}
    method, path, body = call.pop("method"), call.pop("path"), call.pop("body")
    return signed(method, path, body, **call)


@pytest.mark.parametrize(
    "other",
    [
        {"body": good_body() + b" "},
        {"body": b""},
        {"method": "GET"},
        {"path": "/v1/activate"},
        {"path": "/v1/validate/"},
        {"secrets": ("not-the-shared-secret",)},
        {"secrets": ()},
    ],
    ids=str,
)
def test_a_signature_over_something_else_is_refused(quick: Node, other: dict[str, Any]) -> None:
    answer = quick.send("validate", good_body(), headers={"X-Signature": " ", **over(quick, **other)})
    problem(answer.response, 401, "SIGNATURE_INVALID")


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Timestamp"])
def test_request_id_and_timestamp_are_part_of_what_is_signed(quick: Node, header: str) -> None:
    replaced = {"X-Request-Id": "another-request", "X-Timestamp": str(quick.now() - 7)}[header]
    answer = quick.send("validate", good_body(), headers={header: replaced})
    problem(answer.response, 401, "SIGNATURE_INVALID")


@pytest.mark.parametrize("change", [str.lower, lambda s: s[3:], lambda s: s.replace("v1,", "v2,"), lambda s: s + "A"])
def test_a_signature_that_is_almost_right_is_refused(quick: Node, change: Callable[[str], str]) -> None:
    headers = over(quick)
    headers["X-Signature"] = change(headers["X-Signature"])
    problem(quick.send("validate", good_body(), headers=headers).response, 401, "SIGNATURE_INVALID")


def test_rotation_takes_any_secret_of_the_node_and_any_signature_of_the_client(quick: Node) -> None:
    for secrets in (
        ("another-shared-secret",),
        ("retired-long-ago", SHARED_SECRET),
        ("another-shared-secret", "not-there-yet"),
    ):
        assert quick.send("validate", good_body(), headers=over(quick, secrets=secrets)).code == "NOT_FOUND"


def test_a_query_string_is_malformed(quick: Node) -> None:
    body = good_body()
    headers = signed("POST", "/v1/validate", body, now=quick.now())
    response = quick.http.post("/v1/validate?key=1", data=body, headers=headers)
    assert problem(response, 400, "MALFORMED")["field"] == "query"


@pytest.mark.parametrize("request_id", ["short", "x" * 65, "with space", "semi;colon"])
def test_a_request_id_of_another_shape_is_malformed_and_not_echoed(quick: Node, request_id: str) -> None:
    answer = quick.send("validate", good_body(), request_id=request_id)
    malformed(answer, "X-Request-Id")
    assert answer.body["request_id"] != request_id


def test_a_request_id_is_echoed_by_problems(quick: Node) -> None:
    assert quick.send("validate", b"", request_id="request-77").body["request_id"] == "request-77"
    assert quick.http.get("/nowhere", headers={"X-Request-Id": "request-78"}).json["request_id"] == "request-78"  # type: ignore[index]


# -- what comes first -----------------------------------------------------------------------------------------------


class ClientRequest(NamedTuple):
    """A call in the making, which faults change one after the other."""

    path: str
    method: str
    body: bytes
    type: str
    api_key: str
    skew: int
    secret: str
    query: str

    def by(self, node: Node) -> TestResponse:
        headers = signed(self.method, self.path, self.body, secrets=(self.secret,), now=node.now() + self.skew)
        headers |= {"Content-Type": self.type, "X-API-Key": self.api_key}
        return node.http.open(self.path + self.query, method=self.method, data=self.body, headers=headers)


#: In the contract's order. Two faults of one group exclude each other.
_FAULTS: dict[str, tuple[str, Callable[[ClientRequest], ClientRequest]]] = {
    "ROUTE_NOT_FOUND": ("route", lambda s: s._replace(path="/v1/nowhere")),
    "METHOD_NOT_ALLOWED": ("route", lambda s: s._replace(method="PUT")),
    "BODY_TOO_LARGE": ("body", lambda s: s._replace(body=s.body.ljust(LIMIT + 1))),
    "UNSUPPORTED_MEDIA_TYPE": ("type", lambda s: s._replace(type="text/plain")),
    "API_KEY_INVALID": ("api key", lambda s: s._replace(api_key="wrong")),
    "TIMESTAMP_SKEWED": ("time", lambda s: s._replace(skew=-1000)),
    "SIGNATURE_INVALID": ("signature", lambda s: s._replace(secret="wrong")),
    "MALFORMED": ("body", lambda s: s._replace(body=b"[]")),
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (first, second)
        for first, second in itertools.combinations(_FAULTS, 2)
        if _FAULTS[first][0] != _FAULTS[second][0]
    ],
)
def test_of_two_problems_the_one_that_comes_first_is_told(quick: Node, first: str, second: str) -> None:
    sent = ClientRequest("/v1/validate", "POST", good_body(), "application/json", API_KEY, 0, SHARED_SECRET, "")
    for name in (first, second):
        assert json.loads(_FAULTS[name][1](sent).by(quick).data)["code"] == name
    both = _FAULTS[first][1](_FAULTS[second][1](sent))
    assert json.loads(both.by(quick).data)["code"] == first


def test_a_malformed_body_comes_before_a_used_request_id(node: Node) -> None:
    sold = sell(node.database)
    node.call("usage", sold.key, request_id="request-1")
    bad = node.call("usage", sold.key, request_id="request-1", increment=0)
    assert (bad.status, bad.code) == (400, "MALFORMED")


def test_nothing_that_was_refused_is_in_the_log(node: Node) -> None:
    sold = sell(node.database)
    body = json.dumps({"key": sold.key, "nonce": NONCE, "increment": 1}).encode()
    for headers in ({"X-API-Key": "wrong"}, {"X-Signature": "v1,wrong"}, {"Content-Type": "text/plain"}):
        assert node.send("usage", body, headers=headers).status in (401, 415)
    assert node.send("usage", body.ljust(LIMIT + 1)).status == 413
    assert node.send("usage", body.replace(b"increment", b"unknown")).status == 400
    assert events_of(node.database, sold) == []
    assert license_row(node.database, sold)["uses"] == 0


def test_the_product_of_this_suite_is_sold_on_every_node(node: Node) -> None:
    """Guards the tests above: a key that is known is told apart from one that is not."""
    assert node.call("validate", sell(node.database).key, product=PRODUCT).code == "VALID"
