"""The server's processes, from outside: they end in order, come back when they die or hang, and never just time out."""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import psutil
import pytest
import requests

from api.server import ServerOptions
from api.server.beats import Pulse
from api.server.children import restart_delay
from tests.support.processes import ServerProcess, freeze, is_running, running, until

APP = ("-m", "tests.support.small_app")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")


@contextlib.contextmanager
def small_app(env: dict[str, str] | None = None, **options: float) -> Iterator[ServerProcess]:
    with running(*APP, env={"OPTIONS": json.dumps(options), **(env or {})}) as server:
        until(lambda: len(workers(server)) == options.get("workers", 2), "all workers")
        yield server


def parent(process: psutil.Process) -> int | None:
    """Its parent's id; None if it has just died."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.ppid()
    return None


def workers(server: ServerProcess) -> set[psutil.Process]:
    """The children of Granian's process."""
    return {each for each in server.descendants() if parent(each) not in (server.process.pid, None)}


def granian(server: ServerProcess) -> int:
    """The id of the process that has the workers."""
    parents = until(lambda: {parent(worker) for worker in workers(server)} - {None}, "a worker")
    return int(parents.pop() or 0)


def ask(port: int, path: str, timeout: float = 30.0) -> tuple[int | str, dict[str, object], float]:
    """One GET on a connection of its own: status (or what went wrong), the JSON answered, seconds taken."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        status: int | str = answer.status
    except (OSError, http.client.HTTPException) as error:
        status, body = type(error).__name__, b"{}"
    finally:
        connection.close()
    return status, json.loads(body), time.monotonic() - began


def in_flight(server: ServerProcess) -> int:
    """How many connections the workers hold."""
    held = itertools.chain.from_iterable(worker.net_connections("tcp") for worker in workers(server))
    return sum(each.status == psutil.CONN_ESTABLISHED for each in held)


class Probe:
    """Asks all the time, each time anew, while a test does its worst; keeps what it was told and how long it took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.statuses: collections.Counter[int | str] = collections.Counter()
        self.longest = 0.0

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)

    def _loop(self) -> None:
        while not self._end.is_set():
            status, _, seconds = ask(self._port, "/pid")
            self.statuses[status] += 1
            self.longest = max(self.longest, seconds)


class Looping:
    """64 clients that ask again and again on connections they keep, each until it is refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.counts: collections.Counter[str] = collections.Counter()
        self._threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(64)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _loop(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while True:
            try:
                connection.connect() if connection.sock is None else None
            except ConnectionRefusedError:
                self.counts["refused"] += 1
                return
            try:
                connection.request("GET", "/pid")
                answer = connection.getresponse()
                answer.read()
                self.counts[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.counts[f"cut: {error!r}"] += 1
                connection.close()


# -- starting and ending ----------------------------------------------------------------------------------------------


def test_a_port_in_use_is_said_and_ends_with_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with ServerProcess.python(*APP, env={}, port=port) as server:
            assert server.wait() == 1
            assert f"cannot listen on 127.0.0.1:{port}: it is in use by another process" in server.output()


def test_a_second_server_cannot_take_the_first_ones_port() -> None:
    with small_app() as first, ServerProcess.python(*APP, env={}, port=first.port) as second:
        assert second.wait() == 1
        assert first.answers()


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_no_request_of_64_looping_clients_is_cut_off_by_the_end(number: int) -> None:
    with small_app() as server:
        clients = Looping(server.port)
        until(lambda: clients.counts["200"] > 500, "requests on their way")
        server.signal(number)
        assert server.wait() == 0
        clients.join()
    assert clients.counts.pop("refused") == 64
    assert set(clients.counts) == {"200"}


def test_what_is_in_flight_at_the_end_is_answered() -> None:
    with small_app() as server, ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, server.port, "/slow?s=3") for _ in range(8)]
        until(lambda: in_flight(server) >= 8, "requests in flight")
        assert server.stop() == 0
        assert [answer.result()[0] for answer in answers] == [200] * 8


def test_a_node_that_is_ending_is_unready_and_still_answers() -> None:
    with small_app(drain_notice=3) as server:
        assert server.get("/readyz").status_code == 200
        server.signal(signal.SIGTERM)
        until(lambda: server.get("/readyz").status_code == 503, "unready")
        answer = server.get("/pid")
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert server.wait() == 0


@pytest.mark.parametrize("said", [b"", b"GET /pid HT"], ids=["nothing", "half-a-head"])
def test_a_client_that_never_asks_does_not_hold_up_the_end(said: bytes) -> None:
    with small_app(drain_timeout=60) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(said)
        until(lambda: in_flight(server) >= 1, "the connection")
        assert server.stop(deadline=20) == 0


def test_a_body_on_its_way_at_the_end_is_awaited() -> None:
    with small_app(drain_notice=0) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n")
        until(lambda: in_flight(server) >= 1, "the connection")
        server.signal(signal.SIGTERM)
        for byte in b"slowly!":
            time.sleep(0.5)
            client.sendall(bytes([byte]))
        assert b'"size":7' in client.recv(4096) + client.recv(4096)
        assert server.wait() == 0


def test_an_end_that_comes_while_workers_are_starting_is_heard() -> None:
    with ServerProcess.python(*APP, env={"OPTIONS": '{"drain_timeout": 60}', "START_S": "60"}) as server:
        until(lambda: len(workers(server)) == 2, "all workers")
        assert server.stop(deadline=20) == 0


def test_a_stopped_worker_does_not_hold_up_the_end() -> None:
    with small_app(drain_timeout=2) as server:
        everything = server.descendants()
        freeze(workers(server).pop())
        assert server.stop(deadline=20) == 0
        assert not any(is_running(each) for each in everything)


def test_the_companion_is_told_first(tmp_path: Path) -> None:
    file = tmp_path / "companion"
    with small_app({"COMPANION_FILE": str(file)}, drain_notice=5) as server:
        assert until(file.read_text, "the companion").startswith("up")
        server.signal(signal.SIGTERM)
        until(lambda: file.read_text() == "resigned", "its farewell")
        assert server.answers()
        assert server.wait() == 0


# -- coming back ------------------------------------------------------------------------------------------------------


def replaced(server: ServerProcess, old: psutil.Process) -> bool:
    return not is_running(old) and len(workers(server)) == 2 and server.answers()


def test_a_dead_worker_is_replaced() -> None:
    with small_app() as server:
        others = workers(server)
        victim = others.pop()
        victim.kill()
        until(lambda: replaced(server, victim), "another worker")
        assert others < workers(server)


class Closable(Protocol):
    def close(self) -> None: ...


Hang = Callable[[ServerProcess, psutil.Process], Closable]


def stop(server: ServerProcess, victim: psutil.Process) -> Closable:
    freeze(victim)
    return contextlib.ExitStack()


def ask_for(path: str) -> Hang:
    """Has the victim take this request: the connection that reaches it is found by asking who is there."""

    def ask_victim(server: ServerProcess, victim: psutil.Process) -> Closable:
        for _ in range(1000):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("GET", "/pid")
            if json.loads(connection.getresponse().read())["pid"] == victim.pid:
                connection.request("GET", path)
                return connection
            connection.close()
        raise AssertionError("the victim took no connection")

    return ask_victim


@pytest.mark.parametrize("hang", [stop, ask_for("/stuck"), ask_for("/seize")], ids=["stopped", "stuck", "seized"])
def test_a_hung_worker_is_noticed_and_replaced(hang: Hang) -> None:
    with small_app(hang_timeout=3) as server:
        others = workers(server)
        victim = others.pop()
        with contextlib.closing(hang(server, victim)):
            until(lambda: replaced(server, victim), "another worker")
        assert others < workers(server)
        assert "worker hangs" in server.output()


def test_a_host_that_stands_still_for_a_while_costs_no_worker() -> None:
    """Under load one of the sixteen connections has been seen closed by Granian afterwards; why is not known."""
    with small_app(hang_timeout=3) as server, ThreadPoolExecutor(16) as clients:
        before = workers(server)
        asked = [clients.submit(ask, server.port, "/slow?s=2") for _ in range(16)]
        until(lambda: in_flight(server) >= 16, "requests in flight")
        everything = [server.process, *server.descendants()]
        for process in everything:
            freeze(process)
        time.sleep(5)  # nothing to wait for: this is the standstill
        for process in reversed(everything):
            process.resume()
        assert sum(each.result()[0] == 200 for each in asked) >= 15
        assert workers(server) == before


def test_while_one_worker_is_stopped_the_other_answers_whoever_comes() -> None:
    with small_app(hang_timeout=60) as server:
        freeze(workers(server).pop())
        assert [ask(server.port, "/pid", timeout=10)[0] for _ in range(20)] == [200] * 20


def test_granian_is_started_again_after_two_deaths_in_a_row_and_the_port_stays_open() -> None:
    with small_app() as server:
        before = granian(server)
        with Probe(server.port) as probe:
            seen = workers(server)
            survivor = seen.pop()
            seen.pop().kill()
            second = until(lambda: workers(server) - {survivor} - seen, "the first replacement").pop()
            until(lambda: probe.statuses[200] > 20, "answers")
            second.kill()
            until(lambda: granian(server) != before and server.answers(), "another Granian")
            until(lambda: len(workers(server)) == 2, "two workers")
        print(f"the longest answer took {probe.longest:.2f} s", dict(probe.statuses))
        assert "ConnectionRefusedError" not in probe.statuses
        assert probe.longest < 10


def test_all_workers_dead_at_once_come_back_and_the_port_stays_open() -> None:
    with small_app() as server, Probe(server.port) as probe:
        for victim in workers(server):
            victim.kill()
        until(lambda: len(workers(server)) == 2, "two workers")
        assert until(server.answers, "an answer")
    print(f"the longest answer took {probe.longest:.2f} s", dict(probe.statuses))
    assert "ConnectionRefusedError" not in probe.statuses


def test_a_granian_that_does_not_replace_its_dead_is_itself_replaced() -> None:
    with small_app(drain_timeout=1) as server:
        before = psutil.Process(granian(server))
        freeze(before)
        workers(server).pop().kill()
        until(lambda: not is_running(before), "the end of the old Granian", deadline=60)
        until(lambda: len(workers(server)) == 2 and server.answers(), "two workers")


def test_granian_killed_takes_its_workers_along_and_comes_back() -> None:
    with small_app() as server:
        orphans = workers(server)
        psutil.Process(granian(server)).kill()
        until(lambda: not any(is_running(each) for each in orphans), "no orphan")
        until(lambda: len(workers(server)) == 2 and server.answers(), "two workers")


def test_a_companion_that_dies_is_started_again(tmp_path: Path) -> None:
    file = tmp_path / "companion"
    with small_app({"COMPANION_FILE": str(file)}):
        first = until(lambda: file.exists() and file.read_text(), "the companion")
        psutil.Process(int(first.split()[1])).kill()
        until(lambda: file.read_text() not in ("", first), "another companion")


def test_workers_that_fail_at_their_start_are_tried_again_until_they_do_not(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    options = {"OPTIONS": "{}", "BREAK_FILE": str(broken)}
    with ServerProcess.python(*APP, env=options) as server:
        until(lambda: server.output().count("process ended") >= 3, "three attempts")
        broken.unlink()
        server.wait_until_answers()


@linux
def test_nothing_survives_the_masters_sudden_death(tmp_path: Path) -> None:
    with small_app({"COMPANION_FILE": str(tmp_path / "companion")}) as server:
        orphans = server.descendants()
        assert len(orphans) == 4
        freeze(workers(server).pop())
        server.process.kill()
        until(lambda: not any(is_running(each) for each in orphans), "no orphan")


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


def test_the_answer_of_a_full_worker_is_a_problem_that_says_when_to_come_back() -> None:
    with small_app(workers=1, threads=4, places=1) as server, ThreadPoolExecutor(1) as client:
        busy = client.submit(ask, server.port, "/slow?s=5")
        headers = {"X-Request-Id": "request-0001"}
        until(lambda: server.get("/pid").status_code == 503, "a refusal")
        refused = requests.get(server.url + "/pid", headers=headers, timeout=10)
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["Content-Type"] == "application/problem+json"
        problem = refused.json()
        assert (problem["status"], problem["code"], problem["type"]) == (503, "OVERLOADED", "about:blank")
        assert problem["request_id"] == "request-0001"
        assert server.answers("/livez")
        assert busy.result()[0] == 200
        assert server.answers("/pid")


def test_a_streamed_answer_arrives_whole_and_gives_its_place_back() -> None:
    with small_app(workers=1, threads=4, places=1) as server:
        for _ in range(3):
            assert server.get("/stream?n=20").text.split() == [str(number) for number in range(20)]


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


@linux
def test_bodies_that_drip_hold_no_thread_for_ever_and_others_are_served_meanwhile() -> None:
    with small_app(body_timeout=3) as server:
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


# -- the rules behind -------------------------------------------------------------------------------------------------


def test_a_worker_that_is_silent_or_says_so_itself_is_hung() -> None:
    pulse = Pulse(timeout=4)
    pulse.heard([(1, False), (2, False), (3, False)], now=0)
    assert [pulse.hung(now=float(second)) for second in range(4)] == [[], [], [], []]
    pulse.heard([(2, False), (3, True)], now=3.5)
    assert pulse.hung(now=4.5) == [1, 3]
    assert pulse.keep(lambda pid: pid == 2) == 1
    assert pulse.hung(now=5.5) == []


def test_after_the_master_itself_stood_still_no_worker_is_taken_for_hung() -> None:
    pulse = Pulse(timeout=4)
    pulse.heard([(1, False)], now=0)
    assert pulse.hung(now=1) == []
    assert pulse.hung(now=1000) == []
    assert [pulse.hung(now=1000.0 + second) for second in (2, 4, 5)] == [[], [], [1]]


def test_a_restart_is_at_once_at_first_and_then_later_and_later() -> None:
    assert [restart_delay(failures) for failures in (-1, 0, 1, 2, 3)] == [0, 0, 0.1, 0.2, 0.4]
    assert restart_delay(1000) == 5


@pytest.mark.parametrize("wrong", [{"places": 80}, {"places": 0}, {"workers": 0}])
def test_options_that_contradict_one_another_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        ServerOptions(**wrong)  # type: ignore[arg-type]
