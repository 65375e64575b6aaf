"""Client calls that are begun without a thread of their own: the same answers, each once, and nothing that waits."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder, TestResponse

from api.checks.batcher import BacklogFull, FlushTimeout
from api.checks.unit_of_work import RequestIdReused
from api.ledger.errors import LedgerBusy, LedgerError, LedgerRefused, LedgerUnavailable, QueueIsFull
from api.licensing import Act
from api.problems import Problem
from api.server.application import PRIVATE, NonBlockingHandler, Reply
from tests.support.nodes import Node, Sold, change_license, events_of, node_on, sell, signed
from tests.support.processes import until

_S = 30.0
FIELDS: dict[Act, dict[str, Any]] = {
    Act.ACTIVATE: {"fingerprint": "here"},
    Act.VALIDATE: {"version": "1.0"},
    Act.PING: {"fingerprint": "here"},
    Act.CHECK_IN: {},
    Act.USAGE: {"increment": 2},
    Act.CHECKOUT: {"fingerprint": "here", "ttl": 3600},
    Act.DEACTIVATE: {"fingerprint": "here"},
}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on(request.param, request, tmp_path_factory.mktemp("node")) as node:
        yield node


class Begun:
    """One call, begun; `taken`: whether it was."""

    def __init__(self, node: Node, act: Act, body: dict[str, Any], **headers: str) -> None:
        self.replies: list[Reply] = []
        self._answered = threading.Event()
        raw, path = json.dumps(body).encode(), f"/v1/{act}"
        sent = {**signed("POST", path, raw, now=node.now()), **headers}
        environ = EnvironBuilder(path, method="POST", data=raw, headers=sent).get_environ()
        before = dict(environ)
        non_blocking: NonBlockingHandler = node.app.extensions["non_blocking"]
        self.taken = non_blocking.begin(environ, raw, self._answer)
        assert environ == before

    def _answer(self, reply: Reply) -> None:
        self.replies.append(reply)
        self._answered.set()

    def reply(self) -> Reply:
        """Its answer, the only one."""
        assert self.taken
        assert self._answered.wait(_S)
        [reply] = self.replies
        return reply

    def verdict(self) -> dict[str, Any]:
        reply = self.reply()
        assert (reply.status, reply.headers) == (200, [("Content-Type", "application/json"), *PRIVATE])
        return dict(json.loads(reply.body))


def body_for(sold: Sold, act: Act) -> dict[str, Any]:
    return {"key": sold.key, "nonce": uuid.uuid4().hex, **FIELDS[act]}


def known(node: Node, **columns: Any) -> Sold:
    """A license that this process has answered for already."""
    sold = sell(node.database, **columns)
    node.runtime.unknown_keys.found(sold.key_hash, None)
    return sold


@pytest.mark.parametrize("act", Act)
def test_every_call_of_a_known_key_is_begun_and_answered(node: Node, act: Act) -> None:
    sold = known(node)
    if "fingerprint" in FIELDS[act]:
        assert node.call("activate", sold.key, fingerprint="here").code == "VALID"
    answer = Begun(node, act, body_for(sold, act)).verdict()
    assert answer["code"] == "VALID"
    claims = node.opened(answer["verdict"], "verdict+jwt")
    assert (claims["act"], claims.get("fp")) == (act, FIELDS[act].get("fingerprint"))
    assert events_of(node.database, sold)[-1]["event_id"] == claims["jti"]


def test_many_that_are_begun_at_once_are_each_answered_with_their_own(node: Node) -> None:
    sold = known(node)
    bodies = [body_for(sold, Act.VALIDATE) for _ in range(200)]
    begun = [Begun(node, Act.VALIDATE, body) for body in bodies]
    assert [call.verdict()["nonce"] for call in begun] == [body["nonce"] for body in bodies]
    assert len(events_of(node.database, sold)) == 200


def test_a_denial_is_begun_too(node: Node) -> None:
    assert Begun(node, Act.VALIDATE, body_for(known(node, status="banned"), Act.VALIDATE)).verdict()["code"] == "BANNED"


def test_a_retry_is_told_the_first_outcome_and_another_body_is_a_problem(node: Node) -> None:
    sold, request_id = known(node), uuid.uuid4().hex
    first = signed_call(node, sold, {"increment": 1}, request_id).verdict()
    assert signed_call(node, sold, {"increment": 1}, request_id).verdict()["license"] == first["license"]
    problem = signed_call(node, sold, {"increment": 2}, request_id).reply()
    assert (problem.status, json.loads(problem.body)["code"]) == (422, "REQUEST_ID_REUSED")
    assert json.loads(problem.body)["request_id"] == request_id


def signed_call(node: Node, sold: Sold, fields: dict[str, Any], request_id: str) -> Begun:
    body = {"key": sold.key, "nonce": uuid.uuid4().hex, **fields}
    headers = signed("POST", "/v1/usage", json.dumps(body).encode(), request_id=request_id, now=node.now())
    return Begun(node, Act.USAGE, body, **headers)


# -- what is not begun ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"X-API-Key": "wrong"}, {"X-Signature": "v1,AAAA"}, {"X-Timestamp": "1000000000"}, {"X-Request-Id": "short"}],
)
def test_what_would_be_refused_is_not_begun_and_counts_as_no_failure(
    node: Node, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    failed = watched(monkeypatch, node.runtime.state.failures, "failed")
    assert not Begun(node, Act.VALIDATE, body_for(known(node), Act.VALIDATE), **headers).taken
    assert not failed


@pytest.mark.parametrize("headers", [{"Origin": "https://shop.example"}, {"Content-Type": "text/plain"}])
def test_what_is_flasks_is_not_begun(node: Node, headers: dict[str, str]) -> None:
    assert not Begun(node, Act.VALIDATE, body_for(known(node), Act.VALIDATE), **headers).taken


def test_a_key_that_nobody_knows_yet_is_not_begun(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = watched(monkeypatch, node.runtime.unknown_keys, "enter")
    assert not Begun(node, Act.VALIDATE, body_for(Sold("none", f"nobody-{uuid.uuid4().hex}"), Act.VALIDATE)).taken
    assert not entered


def test_nothing_is_begun_that_would_have_to_look_into_the_queue(node: Node) -> None:
    sold, state = known(node), node.runtime.state
    state.breaker.will_queue()
    try:
        assert not Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).taken
    finally:
        state.breaker.drained(state.breaker.queued)
    assert Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).verdict()["code"] == "VALID"


def test_nothing_is_begun_while_the_node_starts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    sold = known(node)
    monkeypatch.setattr(node.runtime.signing, "signer", None)
    assert not Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).taken


def test_a_failure_before_it_is_in_line_is_left_to_the_long_way(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_key_hash: str) -> None:
        raise RuntimeError("told to fail")

    sold = known(node)
    monkeypatch.setattr(node.runtime.unknown_keys, "negative_cache_hit", fail)
    assert not Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).taken


def watched(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """The calls of a method from now on."""
    calls: list[Any] = []
    method = getattr(owner, name)

    def noted(*given: Any) -> Any:
        calls.append(given)
        return method(*given)

    monkeypatch.setattr(owner, name, noted)
    return calls


# -- what goes wrong after it was begun -----------------------------------------------------------------------------


def told(reply: TestResponse | Reply) -> tuple[int, list[tuple[str, str]], dict[str, Any]]:
    """What may not differ between the ways."""
    if isinstance(reply, Reply):
        status, headers, body = reply
    else:
        status, headers, body = reply.status_code, list(reply.headers.items()), reply.data
    problem = {name: value for name, value in json.loads(body).items() if name != "request_id"}
    return status, [(name, value) for name, value in headers if name != "Content-Length"], problem


@pytest.mark.parametrize(
    "error",
    [
        LedgerUnavailable("away"),
        LedgerBusy("held"),
        LedgerRefused("never"),
        QueueIsFull("5,000 events"),
        LedgerError("other"),
        RequestIdReused(),
        BacklogFull(),
        FlushTimeout(),
        Problem("RATE_LIMITED", retry_after=7),
        RuntimeError("told to fail"),
        SystemExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_problem_is_said_as_on_the_other_ways(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def begin(_operation: Any, _finish: Any, done: Callable[[Any], None]) -> None:
        done(error)

    sold = known(node)
    monkeypatch.setattr(node.runtime.recorder, "begin", begin)
    begun = told(Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).reply())
    assert begun[0] >= 400
    if isinstance(error, Exception):
        raw = json.dumps(body_for(sold, Act.VALIDATE)).encode()
        headers = signed("POST", "/v1/validate", raw, now=node.now())
        flask = {**headers, "Content-Type": "application/json; charset=utf-8"}
        assert begun == told(node.http.post("/v1/validate", data=raw, headers=headers))
        assert begun == told(node.http.post("/v1/validate", data=raw, headers=flask))


def test_a_full_line_is_said_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: Any) -> None:
        raise BacklogFull

    sold = known(node)
    monkeypatch.setattr(node.runtime.recorder, "begin", begin)
    reply = Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (503, "OVERLOADED")
    assert ("Retry-After", "1") in reply.headers


def test_a_call_whose_flush_does_not_end_is_answered(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    sold, held = known(node), threading.Event()
    lane = node.runtime.recorder._checks
    flush = lane._flush
    monkeypatch.setattr(lane, "_flush", lambda operations: held.wait(_S) and flush(operations))
    call = Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE))
    clock = node.runtime.clock
    until(lambda: lane._batch, "it is under way")
    lane.give_up(clock.monotonic() + _S)
    reply = call.reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (503, "LEDGER_UNAVAILABLE")
    assert node.app.extensions["non_blocking"].longest(clock.monotonic() + _S) >= _S
    held.set()


def test_a_known_key_that_turns_out_to_be_nobodys_is_counted_and_remembered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = known(node)
    change_license(node.database, sold, key_hash=f"another-{uuid.uuid4().hex}")
    failed = watched(monkeypatch, node.runtime.state.failures, "failed")
    assert Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE)).verdict()["code"] == "NOT_FOUND"
    assert len(failed) == 2
    assert node.runtime.unknown_keys.negative_cache_hit(sold.key_hash) is not None


def test_failures_of_a_begun_call_are_its_own_address_behind_proxies(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node_on("sqlite", request, tmp_path, TRUSTED_PROXIES="1") as node:
        sold = known(node)
        change_license(node.database, sold, key_hash="another")
        failed = watched(monkeypatch, node.runtime.state.failures, "failed")
        headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
        assert Begun(node, Act.VALIDATE, body_for(sold, Act.VALIDATE), **headers).verdict()["code"] == "NOT_FOUND"
        assert failed[0][0] == "address 203.0.113.9"
