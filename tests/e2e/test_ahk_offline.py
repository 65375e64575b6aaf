"""The AutoHotkey clients without a server: the token, the clock and its floor, copies, damage, and the way back."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wine import Script
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
)
from tests.unit.clients.sockets import Nasty, answers, refused_url
from tests.unit.clients.support import KEY, PRODUCT, says

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


def test_the_token_lasts_as_long_as_it_says_and_the_clock_may_not_go_back(
    ahk: Script, online: str, gone: str, tmp_path: Path
) -> None:
    moments = [0, WEEK - 300, WEEK + 300, -100, -400, 0]
    steps = [new(tmp_path, online), call("Validate"), new(tmp_path, gone)]
    for by in moments:
        steps += [clock(by), call("Validate")]
    steps += [new(tmp_path, online), clock(-400), call("Validate")]
    told = ahk.run(steps)
    assert outcome(told[1]) == (True, "VALID", "server")
    assert abs(_unix(told[1]["offlineUntil"]) - time.time() - WEEK) < 600
    assert [outcome(answer) for answer in told[4:15:2]] == [
        OFFLINE, OFFLINE, refused("OFFLINE_EXPIRED"), OFFLINE, refused("CLOCK_TAMPERED"), OFFLINE,
    ]  # fmt: skip
    assert told[4]["offlineUntil"] == told[1]["offlineUntil"]
    # A customer's wrong clock is no reason to refuse while a server answers.
    assert outcome(told[-1]) == (True, "VALID", "server")


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
             *offline, *online, *offline]
        )  # fmt: skip
    tampered, valid = refused("CLOCK_TAMPERED"), (True, "VALID", "server")
    assert [outcome(answer) for answer in results(told)] == [
        valid, tampered, tampered, valid, tampered, OFFLINE, valid, tampered,
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


def test_a_new_disk_or_a_new_board_costs_no_seat_but_both_at_once_do(ahk: Script, online: str, tmp_path: Path) -> None:
    made = [("guid", "disk", "board"), ("guid", "disk-2", "board"), ("guid", "disk-2", "board-2"),
            ("guid", "disk-3", "board-3"), ("guid-2", "disk-3", "board-3")]  # fmt: skip
    told = ahk.run([step for parts in made for step in (machine(*parts), new(tmp_path, online))])[1::2]
    first, second, third, fourth, fifth = [answer["fingerprint"] for answer in told]
    assert first == second == third
    assert len({third, fourth, fifth}) == 3


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
