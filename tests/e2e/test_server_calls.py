"""Client calls at a node as it is deployed: what is begun without a thread is answered as Flask answers it."""

from __future__ import annotations

import contextlib
import http.client
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.ledger.database import Database
from tests.support.nodes import Sold, environment, events_of, sell, signed
from tests.support.processes import ROOT, ServerProcess, until

#: What makes a call one that Flask answers, and changes nothing else of it.
LONG_WAY = {"Content-Type": "application/json; charset=utf-8"}


class Node:
    """A node of two workers on a ledger, and one license that it knows."""

    def __init__(self, server: ServerProcess, database: Database) -> None:
        self.server = server
        self.database = database
        self.sold: Sold = sell(database)

    def post(
        self, raw: bytes, path: str = "/v1/validate", **headers: str
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers but for those that are made anew, and the JSON; header names with `_` for `-`."""
        sent = {**signed("POST", "/v1/validate", raw), **{name.replace("_", "-"): headers[name] for name in headers}}
        client = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        with contextlib.closing(client):
            client.request("POST", path, raw, {name: text for name, text in sent.items() if text})
            answer = client.getresponse()
            told = {name.lower(): text for name, text in answer.getheaders()}
            return answer.status, told, json.loads(answer.read())

    def body(self, **more: Any) -> bytes:
        return json.dumps({"key": self.sold.key, "nonce": uuid.uuid4().hex, **more}).encode()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    url = f"sqlite:///{folder}/ledger.db"
    env = environment(url, folder, RATE_LIMIT="1000/minute", WEB_CONCURRENCY="2")
    with (
        ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as server,
        contextlib.closing(Database(url)) as database,
    ):
        until(lambda: server.answers("/readyz"), "a node that is ready", 60)
        yield Node(server, database)


def lasting(answer: tuple[int, dict[str, str], dict[str, Any]]) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Without what differs from call to call. Granian ends a connection or not as more of an unread body comes."""
    status, headers, body = answer
    anew = {"request_id", "nonce", "verdict", "token", "ts", "as_of"}
    return (
        status,
        {name: text for name, text in headers.items() if name not in ("date", "content-length", "connection")},
        {name: value for name, value in body.items() if name not in anew},
    )


REFUSED: dict[str, dict[str, str]] = {
    "API_KEY_INVALID": {"X_API_Key": "wrong"},
    "TIMESTAMP_SKEWED": {"X_Timestamp": "1000000000"},
    "SIGNATURE_INVALID": {"X_Signature": "v1,AAAA"},
    "MALFORMED": {"path": "/v1/validate?page=2"},
    "ROUTE_NOT_FOUND": {"path": "/v1/valid%2561te"},
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_refused_is_refused_alike(node: Node, code: str) -> None:
    asked = REFUSED[code]
    short, long = node.post(node.body(), **asked), node.post(node.body(), **{**asked, **LONG_WAY})
    assert short[2]["code"] == code
    assert lasting(short) == lasting(long)


@pytest.mark.parametrize("more", [{}, {"product": "another"}, {"more": 1}, {"fingerprint": "x" * 500}])
def test_a_verdict_or_a_shape_is_answered_alike(node: Node, more: dict[str, Any]) -> None:
    assert lasting(node.post(node.body(**more))) == lasting(node.post(node.body(**more), **LONG_WAY))


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 64 * 1024 + 2, 200_000])
def test_a_body_is_too_large_alike(node: Node, size: int) -> None:
    short, long = node.post(b" " * size), node.post(b" " * size, **LONG_WAY)
    assert lasting(short) == lasting(long)
    assert short[2]["code"] == ("MALFORMED" if size <= 64 * 1024 else "BODY_TOO_LARGE")


def test_a_path_is_signed_as_it_is_read(node: Node) -> None:
    status, _, told = node.post(node.body(), path="/v1/%76alidate")
    assert (status, told["code"]) == (200, "VALID")


def test_calls_on_one_connection_are_each_recorded_and_answered_in_turn(node: Node) -> None:
    before = len(events_of(node.database, node.sold))
    nonces = [uuid.uuid4().hex for _ in range(50)]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", node.server.port, timeout=30)) as client:
        for nonce in nonces:
            raw = json.dumps({"key": node.sold.key, "nonce": nonce}).encode()
            client.request("POST", "/v1/validate", raw, signed("POST", "/v1/validate", raw))
            answer = client.getresponse()
            assert (answer.status, json.loads(answer.read())["nonce"]) == (200, nonce)
    assert len(events_of(node.database, node.sold)) == before + 50
