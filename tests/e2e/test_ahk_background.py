"""The AutoHotkey clients' check in the background, beside other checks of the same script, and what a check leaves."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.processes import ROOT, until
from tests.support.wine import LOGS, Json, Script, windows_path
from tests.support.wine_client import (
    CALM,
    anew,
    call,
    clock,
    denies_now,
    grants,
    machine,
    new,
    outcome,
    reasons,
    results,
    whole,
)
from tests.unit.clients.sockets import Nasty, answers, http, later, refused_url, sends, silent

VALID = (True, "VALID", "server")
OFFLINE = (True, "OFFLINE_VALID", "offline")
USED, FAILOVER, _ = LOGS
ASKS_WINDOW = ROOT / "tests" / "support" / "wine_asks_window.ahk"


def every(milliseconds: int, times: int, **more: object) -> Json:
    """Checks in the background until so many results came."""
    usual = {"act": "validate", "calls": 0, "callback_ms": 0}
    return {"do": "every", "milliseconds": milliseconds, "times": times, **usual, **more}


def begin(milliseconds: int, act: str = "validate") -> Json:
    """One check in the background; the script goes on after so many milliseconds."""
    return {"do": "begin", "milliseconds": milliseconds, "act": act}


def hold(path: Path | None) -> Json:
    """Nobody else can open the file from now on; None: the last one is let go."""
    return {"do": "hold", "path": windows_path(path) if path else ""}


def meet(folder: Path) -> Json:
    return {"do": "meet", "here": windows_path(folder / "here"), "go": windows_path(folder / "go")}


# -- beside the script ------------------------------------------------------------------------------------------------


def test_it_never_holds_up_the_script(ahk: Script, tmp_path: Path) -> None:
    """A silent server takes 3 s; who waits for it is not the script: a timer of its own fires meanwhile."""
    with Nasty(silent) as dead, Nasty(answers(grants())) as two:
        made = [new(tmp_path, dead.url, two.url, budgets=(3_000, CALM[0]), registry=anew()) for _ in range(2)]
        told = ahk.run([made[0], every(50, 2), made[1], every(50, 2, act="ping")])[1::2]
        assert {path for path, _ in two.requests} == {"/v1/validate", "/v1/ping"}
    for answer in told:
        assert len(answer["results"]) >= 2
        assert {outcome(result) for result in answer["results"]} == {VALID}
        assert reasons(answer["results"][0]) == ["timeout"]
        print("the longest wait of the script's own timer:", answer["longest_gap_ms"], "ms")
    # A machine that stands still holds it up as well, but not each time.
    assert min(answer["longest_gap_ms"] for answer in told) < 2_500


class Window:
    """What a window of the script answers to another program, which asks it all the time."""

    def __init__(self, folder: Path) -> None:
        self.heard = folder / "heard"
        self.step = {"do": "window", "title": folder.name}
        #: How often it answered while each of the servers kept the script waiting.
        self.meanwhile: list[int] = []

    def asked_by(self, ahk: Script) -> subprocess.Popen[str]:
        return ahk.wine.start("v2", ASKS_WINDOW, self.step["title"], windows_path(self.heard))

    def _answers(self) -> int:
        return len(self.heard.read_bytes().splitlines()) if self.heard.exists() else 0

    def answers_now(self) -> None:
        """Waits for twenty answers, far less long than the script would wait for its server."""
        before, end = self._answers(), time.monotonic() + 60
        while self._answers() < before + 20 and time.monotonic() < end:
            time.sleep(0.02)
        self.meanwhile.append(self._answers() - before)


@pytest.mark.parametrize("how", [every(50, 1), call("Validate")], ids=["again and again", "in the foreground"])
def test_its_windows_answer_while_a_server_is_waited_for(how: Json, ahk: Script, tmp_path: Path) -> None:
    """In a handshake, before the answer and in the middle of it. Each server goes on when the window has answered."""
    window = Window(tmp_path)

    def in_between(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        answer = http(200, whole(grants(), path, body, headers))
        for part in (b"", answer[:10], answer[10:-10]):
            connection.sendall(part)
            window.answers_now()
        connection.sendall(answer[-10:])

    with Nasty(lambda *_: window.answers_now(), reads=False) as mute, Nasty(in_between) as server:
        urls = [mute.url.replace("http://127.0.0.1", "https://localhost"), server.url]
        running = ahk.begin([window.step, new(tmp_path, *urls, budgets=(300_000,)), how])
        asker = window.asked_by(ahk)
        told = running.answers()[2]
        ahk.wine.finish(asker)
    decided = told["results"][0] if "results" in told else told
    assert (outcome(decided), decided["server"]) == (VALID, server.url)
    assert len(window.meanwhile) >= 4
    assert min(window.meanwhile[:4]) >= 20


def test_two_checks_at_once_keep_the_same_files(ahk: Script, tmp_path: Path) -> None:
    """In the background as often as it can, and in the foreground: nothing is thrown, no line and no file is lost."""
    failing = later(1, sends(lambda *_: http(500, b"")), answers(grants()))
    with Nasty(failing) as one, Nasty(answers(grants())) as two, refused_url() as gone:
        _, told, offline, status = ahk.run(
            [new(tmp_path, one.url, two.url), every(1, 15, calls=40), every(1, 1), call("Status")]
        )
        checks = [*told["results"], *told["meanwhile"], *offline["results"]]
        assert len(told["meanwhile"]) == 40
        assert {outcome(answer) for answer in checks} == {VALID}
        assert outcome(status) == OFFLINE
        # A check in the background that is under way when it is stopped is finished, and may go with the script.
        assert len(ahk.wine.log(USED)) >= len(checks)
        assert all(len(line.split("\t")) == 3 for name in LOGS for line in ahk.wine.log(name))
        (after,) = results(ahk.run([new(tmp_path, gone), call("Validate")]))
    assert outcome(after) == OFFLINE
    assert sorted(file.suffix for file in tmp_path.iterdir() if ahk.version not in file.name) == [
        ".floor", ".machine", ".token",
    ]  # fmt: skip


def test_the_next_one_waits_until_the_callback_has_returned(ahk: Script, tmp_path: Path) -> None:
    with Nasty(answers(grants())) as server:
        _, told = ahk.run([new(tmp_path, server.url), every(1, 4, callback_ms=300)])
    assert (len(told["results"]) >= 4, told["deepest"]) == (True, 1)


@pytest.mark.parametrize("ends_by", ["giving the seat back", "a denial"])
def test_a_token_that_has_been_deleted_does_not_come_back_with_a_late_answer(
    ends_by: str, ahk: Script, tmp_path: Path
) -> None:
    """The answer to the check in the background was given before, and arrives after."""
    is_over = threading.Event()

    denied = ends_by == "a denial"
    ends = answers(denies_now("SUSPENDED") if denied else grants())

    def conduct(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        if path == "/v1/ping":
            is_over.wait(120)
            answers(grants())(connection, path, body, headers)
        else:
            ends(connection, path, body, headers)

    with Nasty(conduct) as server:
        steps = [
            new(tmp_path, server.url, budgets=(120_000,)),
            begin(0, "ping"),
            call("Validate" if denied else "Deactivate"),
        ]
        running = ahk.begin([*steps, meet(tmp_path), {"do": "await"}, call("Status")])
        until((tmp_path / "here").exists, "the call in the foreground has been answered", 120)
        is_over.set()
        (tmp_path / "go").touch()
        ended, in_background, status = results(running.answers())
    assert outcome(ended) == ((False, "SUSPENDED", "server") if denied else VALID)
    assert outcome(in_background) == VALID
    assert outcome(status) == (False, "NO_SERVER", "offline")


# -- what is left -----------------------------------------------------------------------------------------------------


def test_a_script_may_end_in_the_middle_of_a_check(ahk: Script, tmp_path: Path) -> None:
    """WinHTTP's threads are still at work then. Its exit status is 0 each time, or `run` fails."""
    with Nasty(silent) as dead:
        for wait in (0, 1, 20, 50, 100, 300):
            ahk.run([new(tmp_path, dead.url), begin(wait)])


def test_two_hundred_checks_leave_no_handles_and_no_memory(ahk: Script, tmp_path: Path) -> None:
    """Every other one meets a server that fails and one that is cut at its deadline first."""
    with Nasty(silent) as dead, Nasty(answers(grants())) as good, refused_url() as gone:
        repeat = {"do": "repeat", "times": 100}
        steps = [new(tmp_path, good.url), {**repeat, "times": 220}]
        steps += [new(tmp_path / "nasty", gone, dead.url, budgets=(10, 10)), repeat]
        told = ahk.run(steps)
    assert [answer["code"] for answer in told[1::2]] == ["VALID", "NO_SERVER"]
    for first, last in (answer["held"] for answer in told[1::2]):
        print("handles", first["handles"], last["handles"], "bytes", first["bytes"], last["bytes"])
        # One of each per check would be hundreds, and 262 kB each.
        assert last["handles"] - first["handles"] < 40
        assert last["bytes"] - first["bytes"] < 8_000_000


def test_files_that_cannot_be_written_stay_as_they_are_and_change_no_verdict(ahk: Script, tmp_path: Path) -> None:
    """Another program has each of them open in its turn: nothing is thrown, and not a byte of it is another one."""
    folder, log = tmp_path / "kept", ahk.wine.temp / USED
    here, another_board = machine("guid", "disk", "board"), machine("guid", "disk", "another board")
    with Nasty(answers(grants())) as server, Nasty(answers(denies_now("OVERDUE"))) as denies, refused_url() as gone:
        checks = [new(folder, server.url), call("Validate"), new(folder, denies.url), call("Validate")]
        name = ahk.run([here, *checks])[1]["fingerprint"]
        for file in [*folder.iterdir(), log]:
            log.write_bytes(b"x" * 1_000_001)
            kept = file.read_bytes()
            told = ahk.run([here, hold(file), *checks])
            assert [outcome(answer) for answer in results(told)] == [VALID, (False, "OVERDUE", "server")]
            assert {answer["fingerprint"] for answer in told if "fingerprint" in answer} == {name}
            assert file.read_bytes() == kept
        free = {file: file.read_bytes() for file in folder.iterdir()}
        assert sorted(file.suffix for file in free) == [".floor", ".machine", ".token"]

        *_, saved = results(ahk.run([here, *checks[:2], call("Status")]))
        assert all(file.read_bytes() != free[file] for file in free if file.suffix == ".token")
        offline = [new(folder, gone), call("Validate"), clock(-400), call("Validate")]
        back, tampered = results(ahk.run([another_board, *offline]))
    assert (outcome(back), back["offlineUntil"]) == (OFFLINE, saved["offlineUntil"])
    assert outcome(tampered) == (False, "CLOCK_TAMPERED", "offline")
    log.with_suffix(".old").unlink()


def test_what_a_hostile_server_sends_does_not_hold_the_script_up(ahk: Script, tmp_path: Path) -> None:
    """Bodies as large as are taken, made to be slow to read: a quarter of the shortest budget, in the best of three."""
    size = 262_144
    texts = {
        "a list without end": b'{"a":[' + b"1," * ((size - 20) // 2) + b"1]}",
        "members without end": b"{" + b",".join(b'"%x":1' % number for number in range(size // 12)) + b"}",
        "escapes": b'{"a":"' + b"\\n" * ((size - 20) // 2) + b'"}',
        "as many escapes as are taken": b'{"a":"' + b"\\u00e7" * 4_000 + b"x" * (size - 24_020) + b'"}',
        "nested": b"[" * size,
        "blank": b" " * size,
        "numbers": b'{"a":' + b"1" * (size - 20) + b"}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    told = ahk.run([{"do": "members", "path": windows_path(tmp_path / name)} for name in texts for _ in range(3)])
    best = [min(answer["ms"] for answer in told[at : at + 3]) for at in range(0, len(told), 3)]
    print(json.dumps(dict(zip(texts, best, strict=True))))
    assert [answer["count"] for answer in told[::3]] == [0, 0, 0, 1, 0, 0, 1]
    assert max(best) < 500
