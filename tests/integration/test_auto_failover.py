"""The walkthrough as it is told: the monitor is killed, the loop takes over, 15 events are replayed when it returns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.kill_feed.feed import Feed
from failover import SyncManager
from tests.chaos.cluster.machine import WallClock, clock_library
from tests.support.processes import ROOT, until

#: Long enough for a noisy machine to let every process beat in time.
TIMEOUT_S = 5.0
LINES = [
    f"construction Player{number} placed Fireplace" if number % 2 else f"pvp Killer{number} killed Victim{number}"
    for number in range(1, 26)
]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one of the example's programs; its console is in `<name>.out`."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, **env: str) -> subprocess.Popen[str]:
        with (tmp_path / f"{name}.out").open("a") as out:
            command = [sys.executable, "-u", str(ROOT / "examples" / "kill_feed" / f"{name}.py"), str(tmp_path)]
            given = {**os.environ, **env}
            process = subprocess.Popen([*command, str(TIMEOUT_S)], stdout=out, stderr=out, text=True, env=given)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait(30)


def test_the_monitor_dies_the_loop_takes_over_and_15_events_are_replayed_once(tmp_path: Path, start: Start) -> None:
    feed, log = Feed(tmp_path), tmp_path / "game.log"

    def say(lines: list[str]) -> None:
        with log.open("a") as out:
            out.writelines(f"{line}\n" for line in lines)

    def console() -> str:
        return (tmp_path / "bot.out").read_text()

    monitor = start("monitor")
    say(LINES[:5])
    until(lambda: len(feed.rows()) == 5, "the monitor takes what happens")
    start("bot")

    monitor.kill()
    until(lambda: "BACKUP MODE IS ON" in console(), "the loop takes over")
    say(LINES[5:20])
    until(lambda: console().count("Event saved in the queue") == 15, "15 events are queued")
    assert len(feed.rows()) == 5
    queue = SyncManager(path=tmp_path / "sync_queue.db")
    assert queue.get_sync_stats() == {"total": 15, "pending": 15, "synced": 0}

    start("monitor")
    until(lambda: "15 events replayed!" in console(), "the queue is replayed")
    say(LINES[20:])
    until(lambda: len(feed.rows()) == 25, "the monitor is in charge again")
    assert queue.get_sync_stats() == {"total": 15, "pending": 0, "synced": 15}
    queue.close()

    rows = feed.rows()
    assert [f"{kind} {text}" for _line, kind, text, _by in rows] == LINES, "in order, each once"
    assert [by for *_rest, by in rows] == ["monitor"] * 5 + ["bot"] * 15 + ["monitor"] * 5
    said = console()
    assert said.index("[AUTO-FAILOVER] THE PRIMARY IS OFFLINE!") < said.index("[SYNC] Event saved in the queue")
    assert said.index("[AUTO-FAILOVER] THE PRIMARY IS BACK!") < said.index("[SYNC] Event 15 (")
    assert "Traceback" not in said
    assert "Traceback" not in (tmp_path / "monitor.out").read_text()


@pytest.mark.parametrize("skew", [-600, 600])
def test_the_machine_s_clock_is_set_in_backup_mode_and_20_events_are_saved(
    tmp_path: Path, start: Start, skew: int
) -> None:
    (tmp_path / "clock").mkdir()
    library = clock_library(tmp_path)
    if library is None:
        pytest.skip("THERE IS NO C COMPILER: no clock can be set")
    clock = WallClock(tmp_path / "clock", library)
    feed, log = Feed(tmp_path), tmp_path / "game.log"

    def say(lines: list[str]) -> None:
        with log.open("a") as out:
            out.writelines(f"{line}\n" for line in lines)

    def console() -> str:
        return (tmp_path / "bot.out").read_text()

    monitor = start("monitor", **clock.env)
    say(LINES[:5])
    until(lambda: len(feed.rows()) == 5, "the monitor takes what happens")
    start("bot", **clock.env)
    monitor.kill()
    until(lambda: "BACKUP MODE IS ON" in console(), "the loop takes over")
    clock.shift(skew)
    for number in range(5, 25):
        say(LINES[number : number + 1])
        until(lambda n=number: console().count("Event saved in the queue") == n - 4, "it is queued")  # type: ignore[misc]
    assert "THE PRIMARY IS BACK" not in console()

    start("monitor", **clock.env)
    until(lambda: "20 events replayed!" in console(), "the queue is replayed")
    assert [f"{kind} {text}" for _line, kind, text, _by in feed.rows()] == LINES, "in order, each once"
    assert "Traceback" not in console()


def test_the_machine_s_clock_is_set_back_as_the_monitor_dies_and_the_loop_takes_over(
    tmp_path: Path, start: Start
) -> None:
    (tmp_path / "clock").mkdir()
    library = clock_library(tmp_path)
    if library is None:
        pytest.skip("THERE IS NO C COMPILER: no clock can be set")
    clock = WallClock(tmp_path / "clock", library)
    monitor = start("monitor", **clock.env)
    until((tmp_path / "failover.db").exists, "the monitor beats")
    start("bot", **clock.env)
    time.sleep(TIMEOUT_S / 2)  # the loop looks five times in a time-out: it has seen the monitor alive
    clock.shift(-600)
    monitor.kill()
    until(lambda: "BACKUP MODE IS ON" in (tmp_path / "bot.out").read_text(), "the loop takes over")
