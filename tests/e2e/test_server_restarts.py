"""The server's processes, from outside: they come back when they die or hang, and the port stays open meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from api.server.beats import Pulse
from api.server.children import restart_delay
from tests.support.processes import ServerProcess, freeze, is_running, until
from tests.support.small_servers import APP, Probe, ask, granian, in_flight, small_app, workers

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")


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


HANGS = {"stopped": stop, **{name: ask_for(f"/{name}") for name in ("stuck", "seize", "never")}}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_hung_worker_is_noticed_and_replaced(hang: Hang) -> None:
    with small_app(hang_timeout=3) as server:
        others = workers(server)
        victim = others.pop()
        with contextlib.closing(hang(server, victim)):
            until(lambda: replaced(server, victim), "another worker")
        assert others < workers(server)
        assert "worker hangs" in server.output()


def test_a_host_that_stands_still_for_a_while_costs_no_worker() -> None:
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
        assert [each.result()[0] for each in asked] == [200] * 16
        assert workers(server) == before


def test_while_one_worker_is_stopped_the_other_answers_whoever_comes() -> None:
    with small_app(hang_timeout=60) as server:
        freeze(workers(server).pop())
        assert [ask(server.port, "/pid", timeout=10)[0] for _ in range(20)] == [200] * 20


def test_granian_is_started_again_after_two_deaths_in_a_row_and_the_port_stays_open() -> None:
    with small_app() as server:
        before, survivor = granian(server), workers(server).pop()

        def is_another_one() -> bool:
            """Kills whatever is not the survivor: two deaths count as in a row if they are within 5.5 s."""
            if granian(server) == before:
                for victim in workers(server) - {survivor}:
                    victim.kill()
            return granian(server) != before and server.answers()

        with Probe(server.port) as probe:
            until(lambda: probe.statuses[200] > 20, "answers")
            until(is_another_one, "another Granian")
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
        orphans = until(lambda: found if len(found := server.descendants()) == 4 else None, "all processes") or []
        freeze(workers(server).pop())
        server.process.kill()
        until(lambda: not any(is_running(each) for each in orphans), "no orphan")


# -- the rules behind --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_silent_or_says_so_itself_is_hung() -> None:
    pulse = Pulse(timeout=4)
    pulse.record([(1, False), (2, False), (3, False)], now=0)
    assert [pulse.hung(now=float(second)) for second in range(4)] == [[], [], [], []]
    pulse.record([(2, False), (3, True)], now=3.5)
    assert pulse.hung(now=4.5) == [1, 3]
    assert pulse.keep(lambda pid: pid == 2) == 1
    assert pulse.hung(now=5.5) == []


def test_after_the_master_itself_stood_still_no_worker_is_taken_for_hung() -> None:
    pulse = Pulse(timeout=4)
    pulse.record([(1, False)], now=0)
    assert pulse.hung(now=1) == []
    assert pulse.hung(now=1000) == []
    assert [pulse.hung(now=1000.0 + second) for second in (2, 4, 5)] == [[], [], [1]]


def test_a_restart_is_at_once_at_first_and_then_later_and_later() -> None:
    assert [restart_delay(failures) for failures in (-1, 0, 1, 2, 3)] == [0, 0, 0.1, 0.2, 0.4]
    assert restart_delay(1000) == 5
