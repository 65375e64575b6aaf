"""The short way in and Flask's give the same answers; only calls in their usual form take the short one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from flask import Flask
from flask import request as flask_request
from werkzeug.test import TestResponse

from api.licensing import Act
from tests.support.nodes import Node, node_on, sell, signed

PAGE = "https://shop.example"
#: What makes a call one that Flask answers, and changes nothing else of it.
LONG_WAY = {"Content-Type": "application/json; charset=utf-8"}
#: What no call of ours has, and no call may have.
UNSUPPORTED = [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}]
FIELDS: dict[Act, dict[str, Any]] = {
    Act.ACTIVATE: {"fingerprint": "here"},
    Act.VALIDATE: {"fingerprint": "here", "version": "1.0"},
    Act.PING: {"fingerprint": "here"},
    Act.CHECK_IN: {},
    Act.USAGE: {"increment": 2},
    Act.CHECKOUT: {"fingerprint": "here", "ttl": 3600},
    Act.DEACTIVATE: {"fingerprint": "here"},
}


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on("sqlite", request, tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def long_ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The client calls that Flask is asked to dispatch from now on."""
    asked: list[str] = []
    dispatch = Flask.full_dispatch_request

    def noted(app: Flask, *rest: Any) -> Any:
        if flask_request.path.startswith("/v1/"):
            asked.append(flask_request.path)
        return dispatch(app, *rest)

    monkeypatch.setattr(Flask, "full_dispatch_request", noted)
    return asked


class Call(NamedTuple):
    """A call of a key that nobody has; `headers` replace or (where empty) take away what is sent."""

    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    query: str = ""


def good_body(key: str = "nobody-has-this-key") -> bytes:
    return json.dumps({"key": key, "nonce": uuid.uuid4().hex}).encode()


def post(node: Node, call: Call, **more: str) -> TestResponse:
    body = call.body or good_body()
    headers = {**signed("POST", "/v1/validate", body, now=node.now()), **call.headers, **more}
    path = f"/v1/validate{call.query}"
    return node.http.post(path, data=body, headers={name: text for name, text in headers.items() if text})


def told(response: TestResponse) -> tuple[int, list[tuple[str, str]], dict[str, Any]]:
    """All that may not differ: the status, the headers but for the length, and the members but for those made anew."""
    body = json.loads(response.data)
    anew = {"request_id", "nonce", "verdict", "token", "ts", "as_of"}
    headers = sorted((name, value) for name, value in response.headers if name != "Content-Length")
    return response.status_code, headers, {k: v for k, v in body.items() if k not in anew}


@pytest.mark.parametrize("act", Act)
def test_every_call_in_its_usual_form_takes_the_short_way(node: Node, long_ways: list[str], act: Act) -> None:
    sold = sell(node.database)
    if "fingerprint" in FIELDS[act]:
        assert node.call("activate", sold.key, fingerprint="here").code == "VALID"
    answer = node.call(act, sold.key, **FIELDS[act])
    assert (answer.status, answer.code) == (200, "VALID")
    assert answer.claims is not None
    assert (answer.claims["act"], answer.claims.get("fp")) == (act, FIELDS[act].get("fingerprint"))
    assert answer.response.headers["Content-Type"] == "application/json"
    assert not long_ways


@pytest.mark.parametrize("headers", [LONG_WAY, {"Origin": PAGE}, {"Upgrade": "h2c"}, *UNSUPPORTED])
def test_an_unusual_call_is_answered_by_flask(node: Node, long_ways: list[str], headers: dict[str, str]) -> None:
    assert post(node, Call(headers=headers)).status_code == (415 if headers in UNSUPPORTED else 200)
    assert long_ways == ["/v1/validate"]


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_other_methods_are_flasks(node: Node, long_ways: list[str], method: str) -> None:
    assert node.http.open("/v1/validate", method=method).status_code == (200 if method == "OPTIONS" else 405)
    assert long_ways == ["/v1/validate"]


REFUSED = {
    "no API key": Call(headers={"X-API-Key": ""}),
    "another API key": Call(headers={"X-API-Key": "wrong"}),
    "a wrong clock": Call(headers={"X-Timestamp": "1000000000"}),
    "no signature": Call(headers={"X-Signature": ""}),
    "another signature": Call(headers={"X-Signature": "v1,AAAA"}),
    "a request id that is none": Call(headers={"X-Request-Id": "short"}),
    "a query": Call(query="?page=2"),
    "no JSON": Call(b"key=value"),
    "a field too many": Call(b'{"key": "nobody-has-this-key", "nonce": "nnnnnnnnnnnnnnnn", "more": 1}'),
    "too large": Call(b"x" * (64 * 1024 + 1)),
    "a key that nobody has": Call(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_alike_on_both_ways(node: Node, name: str) -> None:
    short, long = told(post(node, REFUSED[name])), told(post(node, REFUSED[name], **LONG_WAY))
    assert short == long
    assert (short[0] == 200) == (name == "a key that nobody has")


def test_a_failure_within_is_a_problem_on_both_ways(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_key_hash: str) -> None:
        raise RuntimeError("told to fail")

    monkeypatch.setattr(node.runtime.unknown_keys, "negative_cache_hit", fail)
    short, long = told(post(node, Call())), told(post(node, Call(), **LONG_WAY))
    assert short == long
    assert (short[0], short[2]["code"]) == (500, "INTERNAL")


def test_a_page_of_an_allowed_origin_may_read_verdicts_and_problems(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with node_on("sqlite", request, tmp_path, CORS_ORIGINS=PAGE) as node:
        for call in (Call(), REFUSED["no API key"]):
            assert post(node, call, Origin=PAGE).headers["Access-Control-Allow-Origin"] == PAGE


def test_a_preflight_names_the_one_method_and_a_page_may_read_when_to_come_again(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with node_on("sqlite", request, tmp_path, CORS_ORIGINS=f"{PAGE},https://b.example") as node:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key, x-signature"}
        preflight = node.http.options("/v1/validate", headers={"Origin": PAGE, **asks}).headers
        assert preflight["Access-Control-Allow-Methods"] == "POST"
        assert preflight["Access-Control-Allow-Headers"] == "x-api-key, x-signature"
        answer = post(node, Call(), Origin=PAGE).headers
        assert (answer["Access-Control-Expose-Headers"], answer["Vary"]) == ("Retry-After", "Origin")
        assert "Access-Control-Allow-Origin" not in post(node, Call(), Origin="https://elsewhere.example").headers
        admin = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
        assert "Access-Control-Allow-Origin" not in node.http.options("/v1/licenses", headers=admin).headers
