"""The way of a request through a worker, without Granian: one answer each, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from api.server import DRAINING, Application, ServerOptions, exchange
from api.server.application import Reply
from api.server.dispatcher import Dispatcher
from api.server.phase import Phase, SharedPhase

_S = 30.0


class Awaited:
    """Granian's awaitable: `come` is what happens to it."""

    def __init__(self) -> None:
        self._outcome: bytes | BaseException | None = None
        self._then: Callable[[Awaited], None] = lambda _: None

    def add_done_callback(self, then: Callable[[Awaited], None]) -> None:
        self._then = then

    def come(self, outcome: bytes | BaseException) -> None:
        self._outcome = outcome
        self._then(self)

    def cancel(self) -> bool:
        if self._outcome is not None:
            return False
        self.come(asyncio.CancelledError())
        return True

    def result(self) -> bytes:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


class Request:
    """Granian's scope and protocol in one, and what it was answered."""

    def __init__(self, path: str = "/a", method: str = "GET", **headers: str) -> None:
        self.body = Awaited()
        self.parts: list[Awaited] = []
        self.ended = False
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.scope, self.proto = self, self
        self.http_version, self.server, self.client, self.scheme = "1.1", "127.0.0.1:80", "[fe80::1%2]:9", "http"
        self.path, self.method, self.query_string, self.authority = path, method, "", None
        self.headers = Headers(headers)

    def __call__(self) -> Awaited:
        return self.body

    def __aiter__(self) -> Request:
        return self

    def __anext__(self) -> Awaited:
        if self.ended:
            raise StopAsyncIteration
        self.parts.append(Awaited())
        return self.parts[-1]

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, dict(headers), body))

    def response_file(self, status: int, headers: list[tuple[str, str]], _path: str) -> None:
        """Whose client is gone: nobody opens the file, and nobody says so."""
        self.answers.append((status, dict(headers), b""))

    def only(self) -> tuple[int, dict[str, str], bytes]:
        """Its one answer, as soon as it is there."""
        end = time.monotonic() + _S
        while not self.answers:
            assert time.monotonic() < end
        [answer] = self.answers
        return answer

    def code(self) -> str:
        return str(json.loads(self.only()[2])["code"])


class Headers:
    def __init__(self, headers: dict[str, str]) -> None:
        self._items = [(name.replace("_", "-"), value) for name, value in headers.items()]

    def items(self) -> list[tuple[str, str]]:
        return self._items

    def __len__(self) -> int:
        return len(self._items)


class Begins:
    """`NonBlockingHandler`: takes what `/at-once` is asked, and keeps how to answer it."""

    def __init__(self) -> None:
        self.begun: list[Callable[[Reply], None]] = []
        self.raised: BaseException | None = None

    def begin(self, environ: WSGIEnvironment, _raw: bytes, answer: Callable[[Reply], None]) -> bool:
        if self.raised is not None:
            raise self.raised
        if environ["PATH_INFO"] == "/at-once":
            self.begun.append(answer)
            return True
        return False

    def longest(self, now: float) -> float:
        return 0.0


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps([environ[DRAINING], environ["REMOTE_ADDR"], environ["wsgi.input"].read().decode()]).encode()
    start_response("201 Created", [("Content-Length", str(len(body)))])
    return [body]


def a_front(app: WSGIApplication = echo, places: int = 2) -> SimpleNamespace:
    begins, phase = Begins(), SharedPhase()
    dispatcher = Dispatcher(
        Application(app, begins), ServerOptions(places=places, body_limit=10, body_timeout=5), phase
    )
    return SimpleNamespace(dispatcher=dispatcher, begins=begins, phase=phase)


def test_a_request_is_answered_by_the_application_on_a_thread() -> None:
    stage, request = a_front(), Request()
    stage.dispatcher(request)
    assert request.only() == (201, {"Content-Length": "22"}, b'[false, "fe80::1", ""]')
    assert stage.dispatcher.busy() == 0


def test_what_is_begun_is_answered_by_whoever_comes_first_and_once() -> None:
    stage, request = a_front(), Request("/at-once")
    stage.dispatcher(request)
    assert (request.answers, stage.dispatcher.busy()) == ([], 1)
    answer = stage.begins.begun[0]
    threads = [threading.Thread(target=answer, args=(Reply(200 + number, [], b""),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_S)
    assert request.only()[0] >= 200
    assert stage.dispatcher.busy() == 0


@pytest.mark.parametrize("error", [RuntimeError("told to fail"), SystemExit(1)])
def test_what_raises_at_once_or_on_a_thread_is_answered_too(error: BaseException) -> None:
    def app(_environ: WSGIEnvironment, _start: StartResponse) -> Iterable[bytes]:
        raise error

    stage, slow, quick = a_front(app), Request(x_request_id="request-0001"), Request()
    stage.dispatcher(slow)
    assert slow.code() == "INTERNAL"
    assert json.loads(slow.only()[2])["request_id"] == "request-0001"
    stage.begins.raised = error
    stage.dispatcher(quick)
    assert quick.code() == "INTERNAL"
    assert stage.dispatcher.busy() == 0


def test_a_request_that_cannot_be_read_is_left_to_granian_and_raises_nothing() -> None:
    stage, request = a_front(), Request()
    del request.server
    stage.dispatcher(request)
    assert (request.answers, stage.dispatcher.busy()) == ([], 0)


def test_where_no_thread_is_free_it_is_said_at_once_and_who_asks_whether_it_lives_is_told() -> None:
    go = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["PATH_INFO"] == "/livez" or go.wait(_S)
        return echo(environ, start_response)

    stage, busy = a_front(app, places=1), Request()
    stage.dispatcher(busy)
    refused, live, begun = Request(), Request("/livez"), Request("/at-once")
    for request in (refused, live, begun):
        stage.dispatcher(request)
    assert (refused.only()[0], refused.only()[1]["Retry-After"], refused.code()) == (503, "1", "OVERLOADED")
    assert live.only()[0] == 201
    assert len(stage.begins.begun) == 1
    assert stage.dispatcher.longest(time.monotonic() + 7) >= 7
    go.set()
    assert busy.only()[0] == 201
    assert stage.dispatcher.longest(time.monotonic() + 7) == 0


def test_who_has_an_answer_and_asks_again_at_once_finds_the_place_free() -> None:
    class Eager(Request):
        def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            super().response_bytes(status, headers, body)
            stage.dispatcher(again)

    stage, again = a_front(places=1), Request()
    stage.dispatcher(Eager())
    assert again.only()[0] == 201


def test_while_the_server_leaves_each_answer_ends_its_connection() -> None:
    stage, request, begun = a_front(), Request(), Request("/at-once")
    stage.dispatcher(begun)
    stage.phase.value = Phase.LEAVING
    stage.dispatcher(request)
    assert (request.only()[1]["Connection"], json.loads(request.only()[2])[0]) == ("close", True)
    stage.begins.begun[0](Reply(200, [], b""))
    assert begun.only()[1] == {"Connection": "close"}


def test_an_answer_in_parts_that_nobody_takes_is_not_at_work_and_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return iter([b"first", b"second"])

    monkeypatch.setattr(exchange, "_TAKEN_S", 0.2)
    stage, request = a_front(app), Request()
    stage.dispatcher(request)
    assert request.only()[0] == 200
    assert stage.dispatcher.longest(time.monotonic() + 60) == 0, (
        "it would end the worker, and with it what others wait for"
    )
    end = time.monotonic() + _S
    while stage.dispatcher.busy():
        assert time.monotonic() < end


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_body_is_awaited_without_a_thread() -> None:
    stage, request = a_front(), Request(content_length="3")
    stage.dispatcher(request)
    assert stage.dispatcher.busy() == 1
    assert stage.dispatcher.longest(time.monotonic() + 60) == 0, "whoever sends slowly is not at work"
    request.body.come(b"abc")
    assert json.loads(request.only()[2])[2] == "abc"


def test_a_body_in_parts_is_put_together_and_cut_beyond_the_limit() -> None:
    stage = a_front()
    short, long = Request(transfer_encoding="chunked"), Request(transfer_encoding="chunked")
    for request in (short, long):
        stage.dispatcher(request)
        request.parts[0].come(b"abc")
    short.parts[1].come(b"d")
    short.ended = True
    short.parts[2].come(b"")
    assert json.loads(short.only()[2])[2] == "abcd"
    long.parts[1].come(b"x" * 100)
    assert len(json.loads(long.only()[2])[2]) == 11
    assert ("Connection" in short.only()[1], long.only()[1]["Connection"]) == (False, "close")


def test_a_body_in_parts_that_breaks_off_is_a_problem() -> None:
    """Granian says of an error no more than an empty part; only at the end is there nothing after it."""
    stage, request = a_front(), Request(transfer_encoding="chunked")
    stage.dispatcher(request)
    request.parts[0].come(b"abc")
    request.parts[1].come(b"")
    assert (request.only()[0], request.only()[1]["Connection"], request.code()) == (400, "close", "MALFORMED")


def test_a_body_that_declares_too_much_is_not_read() -> None:
    stage, request = a_front(), Request(content_length="11")
    stage.dispatcher(request)
    assert json.loads(request.only()[2])[2] == ""
    assert request.only()[1]["Connection"] == "close", "what is left of it would be the next request"


@pytest.mark.parametrize("headers", [{"content_length": "3"}, {"transfer_encoding": "chunked"}])
def test_a_body_that_does_not_come_in_time_is_told_so_once_and_ends_its_connection(headers: dict[str, str]) -> None:
    stage, request, other = a_front(), Request(**headers), Request()
    stage.dispatcher(request)
    stage.dispatcher.end_slow(time.monotonic() + 4)
    assert not request.answers
    stage.dispatcher.end_slow(time.monotonic() + 6)
    assert (request.only()[0], request.only()[1]["Connection"], request.code()) == (400, "close", "MALFORMED")
    stage.dispatcher.end_slow(time.monotonic() + 6)
    stage.dispatcher(other)
    assert other.only()[0] == 201
    assert (len(request.answers), stage.dispatcher.busy()) == (1, 0)


def test_a_body_that_ends_early_is_a_problem() -> None:
    stage, request = a_front(), Request(content_length="3")
    stage.dispatcher(request)
    request.body.come(RuntimeError("transport is closed"))
    assert (request.only()[0], request.only()[1]["Connection"], request.code()) == (400, "close", "MALFORMED")
