"""The server's processes, from outside: they end in order, and nothing that was asked is cut off."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.processes import ROOT, ServerProcess, freeze, is_running, until
from tests.support.small_servers import APP, Looping, ask, in_flight, small_app, workers

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")


def test_a_port_in_use_is_said_and_ends_with_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with ServerProcess.python(*APP, env={}, port=port) as server:
            assert server.wait() == 1
            assert f"cannot listen on 127.0.0.1:{port}: it is in use by another process" in server.output()


def test_a_node_on_a_port_in_use_says_how_to_choose_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, env = taken.getsockname()[1], {"DATA_DIR": str(tmp_path / "data")}
        with ServerProcess.python("app.py", env=env, cwd=ROOT / "api", port=port) as node:
            assert node.wait() == 1
            assert (
                f"in use by another process; choose another with the setting PORT, as in: PORT={port % 65_535 + 1}"
                in (node.output())
            )


def test_a_second_server_cannot_take_the_first_ones_port() -> None:
    with small_app() as first, ServerProcess.python(*APP, env={}, port=first.port) as second:
        assert second.wait() == 1
        assert first.answers()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file: workers that know of it do not become ready while it exists."""
    path = tmp_path / "hold"
    path.touch()
    return path


def test_who_knocks_before_anybody_can_answer_is_refused_at_once(held: Path) -> None:
    """To be kept waiting would cost a client its patience; refused, it asks the next server."""
    with ServerProcess.python(*APP, env={"HOLD_FILE": str(held)}) as server:
        until(lambda: len(workers(server)) == 2, "workers that start")
        assert ask(server.port, "/pid")[0] == "ConnectionRefusedError"
        held.unlink()
        until(server.answers, "an answer")


def test_of_two_servers_that_start_on_one_port_at_once_one_serves_and_the_other_ends_with_status_1(
    held: Path,
) -> None:
    env = {"HOLD_FILE": str(held)}
    with ServerProcess.python(*APP, env=env) as one, ServerProcess.python(*APP, env=env, port=one.port) as other:
        # Where the system lets only one of them bind it, the other has ended by then.
        until(lambda: workers(one) and (workers(other) or not is_running(other.process)), "two that want the port")
        held.unlink()
        until(lambda: not (is_running(one.process) and is_running(other.process)), "the end of one", 60)
        ended, serving = (one, other) if not is_running(one.process) else (other, one)
        assert ended.wait() == 1
        assert f"cannot listen on 127.0.0.1:{one.port}: it is in use by another process" in ended.output()
        until(serving.answers, "an answer")
        assert serving.stop() == 0


@linux
def test_a_workers_threads_take_no_core_from_whoever_runs_and_every_other_process_may(tmp_path: Path) -> None:
    with small_app({"COMPANION_FILE": str(tmp_path / "companion")}) as server:
        until(lambda: len(server.descendants()) == 4, "Granian, its workers and the companion")
        at_work, everything = workers(server), {server.process, *server.descendants()}
        ours = os.sched_getscheduler(0)
        until(lambda: policies(at_work) == {os.SCHED_BATCH if may_be_batch() else ours}, "all threads of the workers")
        assert policies(everything - at_work) == {ours}


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


def test_what_was_begun_without_a_thread_is_answered_before_the_end() -> None:
    with small_app({"LATER_S": "0.2"}, drain_notice=0) as server, ThreadPoolExecutor(20) as clients:
        answers = [clients.submit(ask, server.port, "/later") for _ in range(20)]
        # Each worker answers one after the other: all twenty are there for a fifth of a second only.
        until(lambda: in_flight(server) >= 10, "requests in flight")
        assert server.stop() == 0
        assert [answer.result()[0] for answer in answers] == [200] * 20


def test_a_node_that_is_ending_is_unready_and_still_answers() -> None:
    with small_app(drain_notice=6) as server:
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


def test_an_end_that_comes_while_workers_are_starting_is_heard(held: Path) -> None:
    with ServerProcess.python(*APP, env={"OPTIONS": '{"drain_timeout": 60}', "HOLD_FILE": str(held)}) as server:
        until(lambda: len(workers(server)) == 2, "all workers")
        assert server.stop(deadline=20) == 0


def test_a_stopped_worker_does_not_hold_up_the_end() -> None:
    with small_app(drain_timeout=2) as server:
        everything = server.descendants()
        freeze(workers(server).pop())
        assert server.stop(deadline=20) == 0
        assert not any(is_running(each) for each in everything)


def test_the_companion_is_told_first_and_ends_last(tmp_path: Path) -> None:
    file = tmp_path / "companion"
    with small_app({"COMPANION_FILE": str(file)}, drain_notice=5) as server:
        until(lambda: file.exists() and file.read_text().startswith("up"), "the companion")
        server.signal(signal.SIGTERM)
        until(lambda: file.read_text() == "resigned", "its farewell")
        assert server.answers()
        assert server.wait() == 0
        assert file.read_text() == "alone []"


def policies(processes: set[psutil.Process]) -> set[int]:
    """How the kernel shares its cores between their threads and others."""
    return {os.sched_getscheduler(thread.id) for process in processes for thread in process.threads()}


def may_be_batch() -> bool:
    """Whether the kernel, or a container, lets a process choose that."""
    ask = "import os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"
    return subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL).returncode == 0
