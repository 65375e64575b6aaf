"""Signals from outside: what service managers, containers and terminals send to every process of a server at once."""

from __future__ import annotations

import contextlib
import http.client
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.processes import ServerProcess, is_running, until
from tests.support.small_servers import APP, Looping, ask, in_flight, small_app

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")

ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda one: one.name)


@ENDS
def test_a_signal_to_every_process_cuts_nothing_off(number: int) -> None:
    with small_app() as server, ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, server.port, "/slow?s=2") for _ in range(8)]
        until(lambda: in_flight(server) >= 8, "requests in flight")
        server.signal_all(number)
        assert server.wait() == 0
        assert [answer.result()[0] for answer in answers] == [200] * 8


def test_clients_that_ask_all_the_time_are_served_or_refused_when_every_process_is_signalled() -> None:
    with small_app() as server:
        clients = Looping(server.port)
        until(lambda: clients.counts["200"] > 500, "requests on their way")
        server.signal_all()
        assert server.wait() == 0
        clients.join()
    assert clients.counts.pop("refused") == 64
    assert set(clients.counts) == {"200"}


@ENDS
def test_a_signal_that_only_children_get_changes_nothing(number: int, tmp_path: Path) -> None:
    file = tmp_path / "companion"
    with small_app({"COMPANION_FILE": str(file)}) as server:
        until(lambda: file.exists() and file.read_text().startswith("up"), "the companion")
        before = set(server.descendants())
        for child in before:
            child.send_signal(number)
        assert [ask(server.port, "/pid")[0] for _ in range(20)] == [200] * 20
        assert set(server.descendants()) == before
        assert file.read_text().startswith("up")
        assert server.stop() == 0
        assert file.read_text() == "alone []"


def test_a_server_started_by_nohup_survives_the_end_of_its_terminal() -> None:
    with contextlib.ExitStack() as stack:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as nohup has it
        stack.callback(signal.signal, signal.SIGHUP, signal.SIG_DFL)
        server = stack.enter_context(small_app())
        server.signal_all(signal.SIGHUP)
        assert [ask(server.port, "/pid")[0] for _ in range(20)] == [200] * 20
        assert server.stop() == 0


# -- as PID 1 ---------------------------------------------------------------------------------------------------------

_ADOPT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.executable, sys.argv[1:])"
#: Its own process ids and its own /proc, as in a container; where that is not permitted the test is skipped.
_CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def zombies(process: psutil.Process) -> list[psutil.Process]:
    return [each for each in process.children() if not is_running(each)]


def survives_four_deaths_of_granian(server: ServerProcess, top: psutil.Process) -> None:
    """Its workers are then its parent's: none of them may be left over."""
    for _ in range(4):
        until(lambda: server.answers() and [each for each in top.children() if each.children()], "Granian", 60)
        [parent] = [each for each in top.children() if each.children()]
        parent.kill()
        until(lambda parent=parent: not is_running(parent), "its end")
    until(lambda: server.answers() and not zombies(top), "no zombie", 60)
    top.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


@linux
def test_orphans_are_reaped_by_a_server_that_adopts_them() -> None:
    """A subreaper adopts as PID 1 does."""
    with ServerProcess([sys.executable, "-c", _ADOPT, sys.executable, *APP], {}) as server:
        survives_four_deaths_of_granian(server.wait_until_answers(), server.process)


@linux
def test_orphans_are_reaped_by_a_server_that_is_pid_1() -> None:
    with ServerProcess([*_CONTAINER, sys.executable, *APP], {}) as server:
        until(lambda: server.answers() or not is_running(server.process), "a start")
        if not is_running(server.process):
            pytest.skip(f"no process ids of its own here: {server.output()}")
        [top] = server.process.children()
        survives_four_deaths_of_granian(server, top)


# -- a planned stop ----------------------------------------------------------------------------------------------------


class Asking:
    """Clients that ask with pauses, each on a connection that it keeps or on new ones, until they are refused."""

    def __init__(self, port: int, count: int, *, keeps: bool) -> None:
        self._port, self._keeps = port, keeps
        self.told: Counter[str] = Counter()
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._loop, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _loop(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        told = ""
        while told != "refused":
            time.sleep(0.005 + number % 20 * 0.005)
            began = time.monotonic()
            told = self._ask(connection)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.told[told] += 1
            if not self._keeps:
                connection.close()

    @staticmethod
    def _ask(connection: http.client.HTTPConnection) -> str:
        try:
            connection.request("GET", "/pid")
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except ConnectionRefusedError:
            return "refused"
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return repr(error)


@contextlib.contextmanager
def stopping(keeps: bool) -> Iterator[Asking]:
    with small_app() as server:
        clients = Asking(server.port, 40, keeps=keeps)
        until(lambda: clients.told["200"] > 200, "requests on their way")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        clients.join()
        yield clients


@linux
@pytest.mark.parametrize("keeps", [False, True], ids=["new", "kept"])
def test_while_a_server_leaves_every_call_is_answered_or_refused_at_once(keeps: bool) -> None:
    """A handshake that is dropped is tried again after a second: that is what must not happen."""
    with stopping(keeps) as clients:
        print(f"the slowest took {clients.slowest:.3f} s", dict(clients.told))
        assert clients.told.pop("refused") == 40
        assert set(clients.told) == {"200"}
        assert clients.slowest < 0.8


@linux
def test_idle_connections_are_closed_by_a_server_that_leaves() -> None:
    with small_app() as server, contextlib.ExitStack() as stack:
        kept = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in range(20)]
        for connection in kept:
            stack.callback(connection.close)
            connection.request("GET", "/pid")
            assert connection.getresponse().read()
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        assert [connection.sock.recv(1) for connection in kept] == [b""] * 20
        print(f"closed after {time.monotonic() - began:.2f} s")
        assert server.wait() == 0


@linux
def test_the_port_refuses_while_what_is_in_flight_is_still_answered(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with small_app() as server, ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, server.port, f"/held?while={hold}") for _ in range(8)]
        until(lambda: in_flight(server) >= 8, "requests in flight")
        server.signal(signal.SIGTERM)
        until(lambda: ask(server.port, "/pid")[0] == "ConnectionRefusedError", "a refusal")
        assert not any(answer.done() for answer in answers)
        assert max(ask(server.port, "/pid")[2] for _ in range(50)) < 0.2
        hold.unlink()
        assert [answer.result()[0] for answer in answers] == [200] * 8
        assert server.wait() == 0
