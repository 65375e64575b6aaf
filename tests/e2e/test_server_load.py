"""The server under more than it can do, and with clients that drip: an answer or a refusal, never just a time-out."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from api.server import ServerOptions
from tests.support.processes import until
from tests.support.small_servers import ask, in_flight, small_app, workers

# -- more than it can do ----------------------------------------------------------------------------------------------


def test_500_clients_of_a_slow_application_get_200_or_503_and_none_waits_in_vain() -> None:
    with small_app() as server, ThreadPoolExecutor(500) as clients:
        asked = [clients.submit(ask, server.port, "/slow?s=2", timeout=20) for _ in range(500)]
        live = [ask(server.port, "/livez", timeout=10)[0] for _ in range(20)]
        answers = [each.result() for each in asked]
    statuses = collections.Counter(status for status, _, _ in answers)
    assert statuses[200] >= 24
    assert statuses[200] + statuses[503] == 500
    assert {body["code"] for status, body, _ in answers if status == 503} == {"OVERLOADED"}
    assert set(live) == {200}


def test_the_answer_of_a_full_worker_is_a_problem_that_says_when_to_come_back(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with small_app(workers=1, places=1) as server, ThreadPoolExecutor(1) as client:
        busy = client.submit(ask, server.port, f"/held?while={hold}")
        headers = {"X-Request-Id": "request-0001"}
        until(lambda: server.get("/pid").status_code == 503, "a refusal")
        refused = requests.get(server.url + "/pid", headers=headers, timeout=10)
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["Content-Type"] == "application/problem+json"
        problem = refused.json()
        assert (problem["status"], problem["code"], problem["type"]) == (503, "OVERLOADED", "about:blank")
        assert problem["request_id"] == "request-0001"
        assert server.answers("/livez")
        hold.unlink()
        assert busy.result()[0] == 200
        assert server.answers("/pid")


def test_what_is_begun_without_a_thread_takes_no_place(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with small_app({"LATER_S": "0.01"}, workers=1, places=1) as server, ThreadPoolExecutor(64) as clients:
        busy = clients.submit(ask, server.port, f"/held?while={hold}")
        until(lambda: server.get("/pid").status_code == 503, "a full worker")
        answers = [clients.submit(ask, server.port, "/later") for _ in range(200)]
        assert [answer.result()[0] for answer in answers] == [200] * 200
        hold.unlink()
        assert busy.result()[0] == 200


def test_whatever_the_application_raises_or_says_twice_each_request_has_one_answer() -> None:
    with small_app(workers=1) as server:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            for path, status in [("/twice", 200), ("/raises", 500), ("/later", 200), ("/pid", 200)] * 3:
                connection.request("GET", path, headers={"X-Request-Id": "request-0001"})
                answer = connection.getresponse()
                told = json.loads(answer.read())
                assert (path, answer.status) == (path, status)
                assert status == 200 or (told["code"], told["request_id"]) == ("INTERNAL", "request-0001")
        assert "told to fail" in server.output()


def test_clients_that_are_gone_before_their_answer_leave_nothing_behind(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with small_app({"LATER_S": "0.05"}, workers=1, places=2, drain_timeout=60, hang_timeout=3) as server:
        before = workers(server)
        for path in ("/later", f"/held?while={hold}", "/flood?n=1000", "/stream?n=50", "/later"):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        hold.unlink()
        until(lambda: in_flight(server) == 0, "their end")
        until(lambda: all(server.answers("/pid") for _ in range(5)), "a free place")
        assert workers(server) == before
        assert server.stop(deadline=20) == 0


# -- answers in parts -------------------------------------------------------------------------------------------------


def test_a_streamed_answer_arrives_whole_and_gives_its_place_back() -> None:
    with small_app(workers=1, places=1) as server:
        for _ in range(3):
            assert server.get("/stream?n=20").text.split() == [str(number) for number in range(20)]


def test_a_large_answer_of_a_known_length_arrives_whole_and_says_how_long_it_is() -> None:
    with small_app(workers=1, places=1) as server:
        for _ in range(3):
            answer = server.get("/large")
            assert (answer.headers["Content-Length"], len(answer.content)) == ("3000000", 3_000_000)
            assert "Transfer-Encoding" not in answer.headers


def test_parts_are_sent_as_they_come() -> None:
    with small_app(workers=1) as server, socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"GET /stream?n=200 HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = b""
        while b"\r\n3\n\r\n" not in seen:
            seen += client.recv(4096)
        assert b"\r\n199\n" not in seen, "all at once: the last part comes seconds later"


def test_a_slow_reader_is_waited_for_holds_its_place_and_fills_no_memory() -> None:
    with small_app(workers=1, places=1, hang_timeout=2) as server:
        [worker] = workers(server)
        server.get("/flood?n=1")
        before = worker.memory_info().rss
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(b"GET /flood?n=1000 HTTP/1.0\r\nHost: x\r\n\r\n")
            size = len(client.recv(4096))
            time.sleep(5)  # nothing to wait for: longer than a request may be at work
            assert server.get("/pid").status_code == 503
            assert worker.memory_info().rss - before < 30_000_000
            while part := client.recv(1_000_000):
                size += len(part)
        assert size > 100_000_000
        until(lambda: server.answers("/pid"), "a free place")
        assert workers(server) == {worker}


def test_a_reader_that_goes_in_the_middle_gives_its_place_back() -> None:
    with small_app(workers=1, places=1) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(b"GET /flood?n=1000 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096)
            until(lambda: server.get("/pid").status_code == 503, "it holds the place")
        until(lambda: server.answers("/pid"), "a free place")


def test_an_answer_that_breaks_in_the_middle_ends_there_and_costs_nothing_else() -> None:
    with small_app(workers=1, places=1) as server:
        for _ in range(3):
            answer = server.get("/broken")
            assert (answer.status_code, answer.text) == (200, "first\n")
        until(lambda: server.answers("/pid"), "a free place")
        until(lambda: server.output().count("RuntimeError: told to fail") == 3, "why is logged, once for each")


# -- bodies -----------------------------------------------------------------------------------------------------------


class Dripping:
    """A client that declares a body and then sends a byte now and then, or nothing."""

    def __init__(self, port: int, length: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx" % length)
        self._socket.settimeout(0.1)

    def drip(self) -> bytes | None:
        """One more byte; what the server said, b"" if it ended the connection, None if it still waits."""
        try:
            self._socket.send(b"y")
            return self._socket.recv(4096)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("parts", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("path", ["/echo", "/later"])
def test_nothing_of_a_body_is_kept_once_its_request_is_answered(path: str, parts: bool) -> None:
    with small_app(workers=1) as server, requests.Session() as session:
        [worker] = workers(server)

        def send(count: int) -> None:
            for _ in range(count):
                body = iter([b"x" * 30_000] * 2) if parts else b"x" * 60_000
                assert session.post(server.url + path, data=body, timeout=10).json()["size"] == 60_000

        send(100)
        before = worker.memory_info().rss
        send(1000)
        assert worker.memory_info().rss - before < 20_000_000


def test_who_drips_is_told_so_and_nothing_else_comes_by_that_connection() -> None:
    with small_app(body_timeout=1) as server:
        slow = Dripping(server.port, 60_000)
        answer = until(slow.drip, "an answer")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert b'"code": "MALFORMED"' in answer
        until(lambda: slow.drip() == b"", "the end of the connection")
        slow.close()


def test_a_body_in_parts_that_drips_is_ended_too() -> None:
    with small_app(body_timeout=1) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(30)
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_bodies_that_drip_hold_no_thread_for_ever_and_others_are_served_meanwhile() -> None:
    with small_app(body_timeout=3, places=2) as server:
        slow = [Dripping(server.port, 60_000) for _ in range(80)]
        for _ in range(5):
            assert requests.post(server.url + "/echo", data=b"x" * 300, timeout=20).json() == {"size": 300}
        until(lambda: all(each.drip() == b"" for each in slow[-3:]), "the end of the slow ones")
        until(lambda: in_flight(server) == 0, "the end of all slow ones")
        for each in slow:
            each.close()
        assert "worker hangs" not in server.output()


def test_a_body_that_ends_early_is_a_problem() -> None:
    with small_app() as server, socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nX-Request-Id: request-0001\r\nContent-Length: 7\r\n\r\nx")
        client.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        problem = json.loads(answer.read())
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert (problem["status"], problem["code"], problem["request_id"]) == (400, "MALFORMED", "request-0001")


def test_a_huge_declared_body_is_refused_without_being_read() -> None:
    with small_app() as server:
        greedy = Dripping(server.port, 10**12)
        answer = until(greedy.drip, "an answer")
        assert b" 413 " in answer.split(b"\r\n")[0]
        greedy.close()


@pytest.mark.parametrize("body", [b"x" * 300, iter([b"x" * 100, b"y" * 200])], ids=["length", "chunked"])
def test_a_body_arrives_whole_however_it_is_sent(body: bytes | Iterator[bytes]) -> None:
    with small_app() as server:
        assert requests.post(server.url + "/echo", data=body, timeout=10).json() == {"size": 300}


def test_a_chunked_body_beyond_the_limit_is_refused() -> None:
    with small_app() as server:
        sent = iter([b"x" * 4096] * 17)
        assert requests.post(server.url + "/echo", data=sent, timeout=10).status_code == 413


@pytest.mark.parametrize("wrong", [{"places": 0}, {"workers": 0}])
def test_options_that_contradict_one_another_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        ServerOptions(**wrong)  # type: ignore[arg-type]
