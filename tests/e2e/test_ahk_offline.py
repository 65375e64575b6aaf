"""The AutoHotkey clients without a server: the token, the clock and its floor, copies, damage, and the way back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from license_client import Reply
from tests.support.wine import LOGS, Script, program_of
from tests.support.wine_client import (
    anew,
    call,
    clock,
    copy,
    denies_now,
    forget,
    grants,
    machine,
    new,
    outcome,
    remove,
    results,
    seal,
)
from tests.unit.clients.sockets import Nasty, answers, refused_url
from tests.unit.clients.support import KEY, PRODUCT, says
from tests.vectors import jws

WEEK = 604_800
OFFLINE = (True, "OFFLINE_VALID", "offline")


@pytest.fixture
def online() -> Iterator[str]:
    with Nasty(answers(grants(WEEK))) as server:
        yield server.url


@pytest.fixture
def gone() -> Iterator[str]:
    with refused_url() as url:
        yield url


def refused(code: str) -> tuple[bool, str, str]:
    return False, code, "offline"


def test_the_token_lasts_once_as_long_as_it_says_and_the_clock_may_not_go_back(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    tampered, expired = refused("CLOCK_TAMPERED"), refused("OFFLINE_EXPIRED")
    moments = {0: OFFLINE, -700: tampered, WEEK - 1_000: OFFLINE, WEEK - 1_200: OFFLINE, WEEK - 1_400: tampered,
               WEEK + 600: expired, WEEK + 200: tampered, WEEK - 999: tampered, 1: tampered}  # fmt: skip
    since = time.time()
    steps = [new(tmp_path, online), clock(0, since), call("Validate"), new(tmp_path, gone)]
    for by in moments:
        steps += [clock(by, since), call("Validate")]
    # A customer's wrong clock is no reason to refuse while a server answers, which also says what the time is.
    steps += [new(tmp_path, online), clock(-700, since), call("Validate"), clock(2, since), call("Validate")]
    steps += [new(tmp_path, gone), clock(3, since), call("Validate")]
    first, *told, wrong, right, saved = results(ahk.run(steps))
    assert outcome(first) == (True, "VALID", "server")
    assert abs(_unix(first["offlineUntil"]) - time.time() - WEEK) < 600
    assert [outcome(answer) for answer in told] == list(moments.values())
    assert told[0]["offlineUntil"] == first["offlineUntil"]
    assert [outcome(answer) for answer in (wrong, right, saved)] == [(True, "VALID", "server")] * 2 + [OFFLINE]


def test_a_server_whose_clock_was_wrong_once_does_not_poison_the_floor_for_good(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    """Nor does the token that it signed keep the next one out."""
    with Nasty(answers(grants(WEEK, ahead=2 * 365 * 86_400))) as ahead:
        told = ahk.run(
            [step for url in (ahead.url, gone, online, gone) for step in (new(tmp_path, url), call("Validate"))]
        )
    valid = (True, "VALID", "server")
    assert [outcome(answer) for answer in results(told)] == [valid, refused("CLOCK_TAMPERED"), valid, OFFLINE]


def test_asking_for_the_status_changes_nothing(ahk: Script, online: str, tmp_path: Path) -> None:
    since, kept = time.time(), tmp_path / "kept"
    told = ahk.run(
        [new(kept, online), clock(0, since), call("Validate"), clock(WEEK + 300, since), call("Status"),
         clock(0, since), call("Status")]
    )  # fmt: skip
    assert [outcome(answer) for answer in results(told)[1:]] == [refused("OFFLINE_EXPIRED"), OFFLINE]


def test_the_floor_is_kept_in_two_places(ahk: Script, gone: str, tmp_path: Path) -> None:
    """The token is a day old, the verdict new: only the floor knows that the clock was set back by an hour."""
    registry, floor = anew(), tmp_path / f"{PRODUCT}.floor"
    junk = tmp_path / "junk"
    junk.write_bytes(b"damaged")
    offline = [new(tmp_path, gone, registry=registry), clock(-3_600), call("Validate")]
    with Nasty(answers(grants(WEEK, age=86_400))) as server:
        online = [new(tmp_path, server.url, registry=registry), call("Validate")]
        told = ahk.run(
            [*online, *offline, remove(floor), *offline, *online, forget(registry), *offline, copy(junk, floor),
             *offline, forget(registry), copy(junk, floor), *offline, *online, *offline]
        )  # fmt: skip
    tampered, valid = refused("CLOCK_TAMPERED"), (True, "VALID", "server")
    # A place that is lost is written again from the other one.
    assert [outcome(answer) for answer in results(told)] == [
        valid, tampered, tampered, valid, tampered, tampered, OFFLINE, valid, tampered,
    ]  # fmt: skip


def test_a_token_file_that_is_damaged_or_anothers_is_refused_until_a_server_answers(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    ahk.run([new(tmp_path, online), call("Validate")])
    (mine,) = tmp_path.glob("*.token")
    ahk.run([new(tmp_path, online, key="ANOTHER-KEY-OF-SOMEBODY"), call("Validate")])
    (theirs,) = set(tmp_path.glob("*.token")) - {mine}
    good, steps, files = mine.read_bytes(), [], []
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for bad in (theirs.read_bytes(), good[:middle], flipped, b"", b"junk", KEY.encode() * 40):
        files.append(tmp_path / f"bad-{len(files)}")
        files[-1].write_bytes(bad)
        steps.append(copy(files[-1], mine))
        for url in (gone, online, gone):
            steps += [new(tmp_path, url), call("Validate")]
    told = [outcome(answer) for answer in results(ahk.run(steps))]
    assert told == [refused("TOKEN_INVALID"), (True, "VALID", "server"), OFFLINE] * len(files)


def test_nothing_that_is_kept_can_be_read_or_holds_the_key(ahk: Script, online: str, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    ahk.run([new(folder, online), call("Validate")])
    files = list(folder.iterdir())
    assert sorted(file.suffix for file in files) == [".floor", ".machine", ".token"]
    for file in files:
        raw = file.read_bytes()
        assert KEY.encode() not in raw
        assert b"eyJ" not in raw
        assert b"format" not in raw
    assert not [name for name in ahk.wine.temp.iterdir() if KEY.encode() in name.read_bytes()]


def test_a_token_copied_to_another_machine_is_refused_until_a_server_answers(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    here = ahk.run([new(tmp_path, online), call("Validate"), new(tmp_path, gone), call("Validate")])
    assert outcome(here[-1]) == OFFLINE
    guid = ahk.wine.machine_guid
    ahk.wine.machine_guid = str(uuid.uuid4())
    try:
        there = ahk.run([new(tmp_path, gone), call("Validate"), new(tmp_path, online), call("Validate")])
    finally:
        ahk.wine.machine_guid = guid
    assert there[0]["fingerprint"] != here[0]["fingerprint"]
    assert [outcome(answer) for answer in there[1::2]] == [refused("TOKEN_INVALID"), (True, "VALID", "server")]


def test_a_new_disk_or_a_new_board_costs_no_seat_but_both_do(ahk: Script, online: str, tmp_path: Path) -> None:
    """At once, or one after the other: what is kept is the machine as it got its name."""
    same = [("guid", "disk", "board"), ("guid", "disk-2", "board"), ("guid", "disk", "board-2"),
            ("guid", "disk-3", "board")]  # fmt: skip
    others = [("guid", "disk-3", "board-3"), ("guid", "disk-4", "board-4"), ("guid-2", "disk-4", "board-4")]
    told = ahk.run([step for parts in same + others for step in (machine(*parts), new(tmp_path, online))])[1::2]
    names = [answer["fingerprint"] for answer in told]
    assert len(set(names[: len(same)])) == 1
    assert len(set(names)) == 1 + len(others)


def test_a_name_that_does_not_follow_from_this_machines_parts_is_made_anew(
    ahk: Script, online: str, tmp_path: Path
) -> None:
    """Where the file was believed, an empty name gave VALID without a seat, and another machine's ran on any."""
    here, other, both = [("guid", "disk", "board"), ("guid-2", "disk", "board"), ("guid", "disk-2", "board-2")]
    made = ahk.run(
        [step for parts in (other, both, here) for step in (machine(*parts), new(tmp_path / parts[0], online))]
    )[1::2]
    others, moved, mine = [answer["fingerprint"] for answer in made]
    file = tmp_path / "guid" / f"{PRODUCT}.machine"
    forged = [
        {"fp": "", "parts": " ".join(here)}, {"fp": others, "parts": " ".join(here)}, {"parts": " ".join(here)},
        {"fp": others, "parts": " ".join(other)}, {"fp": moved, "parts": " ".join(both)}, {"fp": mine}, {},
        {"fp": mine, "parts": "guid disk"}, {"fp": 7, "parts": [*here]}, {"fp": others, "parts": "  "},
        {"fp": "", "parts": ""}, {"fp": mine.lower(), "parts": " ".join(here)},
    ]  # fmt: skip
    with Nasty(answers(grants(WEEK))) as server:
        client = new(tmp_path / "guid", server.url)
        steps = [step for content in forged for step in (seal(file, content), client, call("Validate"))]
        told = ahk.run([machine(*here), client, *steps])
        sent = [json.loads(body).get("fingerprint") for _, body in server.requests]
    assert sent == [mine] * len(forged)
    assert {answer["fingerprint"] for answer in told if "fingerprint" in answer} == {mine}


def test_a_token_that_a_relay_put_beside_the_verdict_and_an_older_one_are_not_saved(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    def relay(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        good, shorter = (json.loads(grants(ttl)(path, body, headers).body) for ttl in (2 * WEEK, 60))
        return Reply(200, json.dumps({**good, "token": shorter["token"]}).encode())

    (first,) = results(ahk.run([new(tmp_path, online), call("Validate")]))
    (file,) = tmp_path.glob("*.token")
    before = file.read_bytes()
    with Nasty(answers(relay)) as one, Nasty(answers(grants(WEEK, age=3_600))) as two:
        told = results(ahk.run([step for each in (one, two) for step in (new(tmp_path, each.url), call("Validate"))]))
    assert [outcome(answer) for answer in told] == [(True, "VALID", "server")] * 2
    assert {answer["offlineUntil"] for answer in told} == {first["offlineUntil"]}
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["a FIFO", "a FIFO with a reader", "a link to a FIFO", "a device", "a directory"])
def test_what_is_no_regular_file_holds_nobody_up(
    kind: str, ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    """Under the name of each log and of each file that is kept."""
    kept = tmp_path / "kept"
    kept.mkdir()
    names = [f"{PRODUCT}-{jws.digest(KEY)[:16]}.token", f"{PRODUCT}.floor", f"{PRODUCT}.machine"]
    paths = [*(ahk.wine.temp / log for log in LOGS), *(kept / name for name in names)]
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(laid(kind, path)) for path in paths]
        told = results(ahk.run([new(kept, online), call("Validate"), new(kept, gone), call("Validate"), call("Usage")]))
        assert all(reader is None or not reader.read() for reader in readers)
    assert outcome(told[0]) == (True, "VALID", "server")
    assert [answer["code"] for answer in told[1:]] == [
        "TOKEN_INVALID" if kind == "a directory" else "NO_SERVER",
        "NO_SERVER",
    ]
    assert told[0]["offlineUntil"] == ""


@contextlib.contextmanager
def laid(kind: str, path: Path) -> Iterator[BinaryIO | None]:
    """Something that is no regular file under this name; what reads from it without waiting, if anything does."""
    fifo = path.with_name(f"{path.name}.fifo") if kind == "a link to a FIFO" else path
    if kind == "a directory":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(fifo)
    if fifo != path:
        path.symlink_to(fifo)
    try:
        if kind == "a FIFO with a reader":
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
                yield reader
        else:
            yield None
    finally:
        path.rmdir() if kind == "a directory" else path.unlink()
        fifo.unlink(missing_ok=True)


def test_libraries_of_windows_are_not_looked_for_beside_the_program(ahk: Script, online: str, tmp_path: Path) -> None:
    beside, system = tmp_path / "program", ahk.wine.prefix / "drive_c" / "windows" / "system32"
    beside.mkdir()
    ahk.program = beside / "AutoHotkey.exe"
    shutil.copy(program_of(ahk.version), ahk.program)
    for name in ("bcrypt", "crypt32", "winhttp"):
        shutil.copy(system / f"{name}.dll", beside)
    *_, told, loaded = ahk.run([new(tmp_path, online), call("Validate"), {"do": "libraries"}])
    assert told["valid"]
    assert {path.lower().rpartition("\\")[0] for path in loaded["paths"]} == {r"c:\windows\system32"}


def test_a_decided_denial_deletes_the_token_and_others_do_not(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    final, others = ["BANNED", "SUSPENDED", "EXPIRED", "NOT_FOUND"], ["NO_MACHINES", "USES_EXHAUSTED", "OVERDUE"]
    steps = []
    with contextlib.ExitStack() as stack:
        for code in final + others:
            denies = stack.enter_context(Nasty(answers(denies_now(code))))
            for url in (online, denies.url, gone):
                steps += [new(tmp_path, url, key=f"KEY-THAT-IS-{code}"), call("Validate")]
        told = [outcome(answer) for answer in results(ahk.run(steps))]
    assert told[1::3] == [(False, code, "server") for code in final + others]
    assert told[2::3] == [refused("NO_SERVER")] * len(final) + [OFFLINE] * len(others)


def test_grace_is_no_denial_and_a_seat_given_back_takes_the_token_along(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    with Nasty(answers(says("EXPIRED", valid=True))) as grace:
        told = ahk.run(
            [new(tmp_path, online), call("Validate"), new(tmp_path, grace.url), call("Validate"), new(tmp_path, gone),
             call("Validate"), new(tmp_path, online), call("Deactivate"), new(tmp_path, gone), call("Validate")]
        )[1::2]  # fmt: skip
    assert [outcome(answer) for answer in told[1:]] == [
        (True, "EXPIRED", "server"), OFFLINE, (True, "VALID", "server"), refused("NO_SERVER"),
    ]  # fmt: skip


def test_what_the_token_stands_in_for(ahk: Script, online: str, gone: str, tmp_path: Path) -> None:
    calls = [
        call("Validate"), call("Validate", ["pro"]), call("Validate", ["studio"]), call("Activate"), call("Ping"),
        call("CheckIn"), call("Checkout", 60), call("Status"), call("Usage", 2), call("Deactivate"),
    ]  # fmt: skip
    told = ahk.run([new(tmp_path, online), call("Validate"), new(tmp_path, gone), *calls])[3:]
    assert [outcome(answer) for answer in told] == [
        OFFLINE, OFFLINE, refused("TOKEN_INVALID"), *[OFFLINE] * 5, refused("NO_SERVER"), refused("NO_SERVER"),
    ]  # fmt: skip
    logged = [line.split("\t")[1:] for line in ahk.wine.log("license_offline_success.txt")]
    acts = ["validate", "validate", "activate", "ping", "check-in", "checkout"]
    assert logged == [["offline", f"{act} OFFLINE_VALID"] for act in acts]


def _unix(at: str) -> float:
    return time.mktime(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
