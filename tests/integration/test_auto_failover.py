"""The walkthrough as it is told: the monitor is killed, the loop takes over, 15 events are replayed when it returns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.kill_feed.feed import Feed
from failover import SyncManager
from tests.support.processes import ROOT, until

#: Long enough for a noisy machine to let every process beat in time.
TIMEOUT_S = 5.0
LINES = [
    f"construction Player{number} placed Fireplace" if number % 2 else f"pvp Killer{number} killed Victim{number}"
    for number in range(1, 26)
]

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one of the example's programs; its console is in `<name>.out`."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str) -> subprocess.Popen[str]:
        with (tmp_path / f"{name}.out").open("a") as out:
            command = [sys.executable, "-u", str(ROOT / "examples" / "kill_feed" / f"{name}.py"), str(tmp_path)]
            process = subprocess.Popen([*command, str(TIMEOUT_S)], stdout=out, stderr=out, text=True)
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
