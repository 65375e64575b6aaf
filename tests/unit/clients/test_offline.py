"""Without a server: the saved token, this machine, the clock and its floor, and the way back online."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from license_client import LicenseClient, Reply, files
from tests.unit.clients.support import (
    FINGERPRINT,
    KEY,
    NOW,
    PRODUCT,
    SERVERS,
    STRANGER,
    VENDOR,
    Clock,
    Servers,
    answered,
    client_of,
    denies,
    gone,
    lease,
    lines,
    says,
    verdict,
)
from tests.vectors import jws

WEEK = 604_800
OFFLINE = "license_offline_success.txt"


class Scene:
    """A client that was online once, with a token for a week, and whose one server is gone since."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.servers = Servers(says(token=lease()))
        self.client = client_of(self.servers, folder, self.clock)
        assert self.client.validate().valid
        self.servers.behave[SERVERS[0]] = gone()

    def online_again(self, **changes: Any) -> None:
        self.servers.behave[SERVERS[0]] = says(**changes)

    @property
    def token_file(self) -> Path:
        (found,) = (self.folder / "state").glob("*.lease.json")
        return found

    def floors(self) -> list[Path]:
        return [self.folder / place / f"{PRODUCT}.floor.json" for place in ("state", "elsewhere")]

    def elsewhere(self, **changes: Any) -> LicenseClient:
        """Another client over the same files."""
        return client_of(self.servers, self.folder, self.clock, **changes)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_saved_token_carries_the_machine(scene: Scene) -> None:
    result = scene.client.validate()
    assert (result.valid, result.code, result.source, result.server) == (True, "OFFLINE_VALID", "offline", None)
    assert result.to_dict()["offline_until"] == "2025-12-01T16:00:00Z"
    assert result.to_dict()["expires"] == "2025-12-24T16:00:00Z"
    assert result.entitlements == ("pro",)


def test_it_ends_to_the_second_when_the_token_says(scene: Scene) -> None:
    scene.clock.now = NOW + WEEK - 1
    assert scene.client.validate().code == "OFFLINE_VALID"
    scene.clock.now = NOW + WEEK
    assert (scene.client.validate().valid, scene.client.validate().code) == (False, "OFFLINE_EXPIRED")
    scene.online_again(at=NOW + WEEK, token=lease(at=NOW + WEEK))
    assert scene.client.validate().code == "VALID"
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_only_a_valid_offline_answer_is_an_offline_success(scene: Scene) -> None:
    scene.clock.now = NOW + WEEK
    scene.client.validate()
    assert lines(scene.folder, OFFLINE) == []


@pytest.mark.parametrize("act", ["validate", "activate", "ping", "check_in", "checkout", "status"])
def test_calls_that_ask_whether_the_program_may_run_can_be_answered_offline(act: str, scene: Scene) -> None:
    assert getattr(scene.client, act)().code == "OFFLINE_VALID"


@pytest.mark.parametrize("act", ["usage", "deactivate"])
def test_calls_with_an_effect_that_only_a_server_has_cannot(act: str, scene: Scene) -> None:
    result = getattr(scene.client, act)()
    assert (result.valid, result.code) == (False, "NO_SERVER")
    assert scene.token_file.exists()


def test_without_anything_saved(tmp_path: Path) -> None:
    result = client_of(Servers(gone()), tmp_path).validate()
    assert (result.valid, result.code, result.source) == (False, "NO_SERVER", "offline")


def test_entitlements_are_asked_of_the_token_too(scene: Scene) -> None:
    assert scene.client.validate(entitlements=["pro"]).valid
    refused = scene.client.validate(entitlements=["pro", "studio"])
    assert (refused.valid, refused.code) == (False, "TOKEN_INVALID")
    assert "does not include" in refused.detail


# -- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_five_minutes_behind_the_floor_is_tolerated(scene: Scene) -> None:
    scene.clock.now = NOW - 300
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_a_clock_that_was_set_back_is_noticed(scene: Scene) -> None:
    scene.clock.now = NOW - 301
    assert (scene.client.validate().valid, scene.client.validate().code) == (False, "CLOCK_TAMPERED")


def test_every_verdict_raises_the_floor_also_one_without_a_token(scene: Scene) -> None:
    scene.online_again(at=NOW + 86_400, code="NO_MACHINES")
    scene.client.validate()
    assert scene.client.floor == NOW + 86_400
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "CLOCK_TAMPERED"
    scene.clock.now = NOW + 86_400
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_a_verdict_that_was_signed_a_little_earlier_does_not_lower_the_floor(scene: Scene) -> None:
    scene.online_again(at=NOW + 5_000)
    scene.client.validate()
    scene.online_again(at=NOW + 4_700)
    scene.client.validate()
    assert scene.client.floor == NOW + 5_000


def test_a_server_whose_clock_was_wrong_once_does_not_poison_the_floor_for_good(scene: Scene) -> None:
    ahead = NOW + 2 * 365 * 86_400
    scene.online_again(at=ahead, token=lease(at=ahead))
    assert scene.client.validate().code == "VALID"
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "CLOCK_TAMPERED"
    scene.online_again(token=lease(jti="3"))
    assert (scene.client.validate().code, scene.client.floor) == ("VALID", NOW)
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_a_clock_set_back_after_the_tokens_end_does_not_revive_it(scene: Scene) -> None:
    scene.clock.now = NOW + WEEK
    assert scene.client.validate().code == "OFFLINE_EXPIRED"
    scene.clock.now = NOW + WEEK - 301
    assert (scene.client.validate().valid, scene.client.validate().code) == (False, "CLOCK_TAMPERED")
    assert scene.elsewhere().validate().code == "CLOCK_TAMPERED"


def test_a_token_lasts_no_longer_than_it_says_however_often_the_clock_is_set_back(scene: Scene) -> None:
    scene.clock.now = NOW + WEEK - 1_000
    assert scene.client.validate().code == "OFFLINE_VALID"
    scene.clock.now = NOW
    assert scene.client.validate().code == "CLOCK_TAMPERED"


def test_the_local_floor_is_lowered_by_a_verdict_too(scene: Scene) -> None:
    scene.clock.now = NOW + 10 * WEEK
    scene.client.validate()
    scene.clock.now = NOW + 60
    scene.online_again(at=NOW + 60, token=lease(at=NOW + 60))
    assert (scene.client.validate().code, scene.client.floor) == ("VALID", NOW + 60)


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["deleted", "emptied", "nonsense", "lowered"])
def test_one_of_the_two_places_is_enough(lost: int, how: str, scene: Scene) -> None:
    scene.online_again(at=NOW + 86_400)
    scene.client.validate()
    scene.servers.behave[SERVERS[0]] = gone()
    path = scene.floors()[lost]
    if how == "deleted":
        path.unlink()
    else:
        path.write_text({"emptied": "", "nonsense": '{"floor": "high"}', "lowered": '{"floor": 5}'}[how])
    assert scene.client.validate().code == "CLOCK_TAMPERED"
    scene.online_again(at=NOW + 86_401)
    scene.client.validate()
    assert [json.loads(each.read_text())["floor"] for each in scene.floors()] == [NOW + 86_401] * 2


def test_with_both_places_gone_the_token_itself_says_when_it_was_made(scene: Scene) -> None:
    for path in scene.floors():
        path.unlink()
    scene.clock.now = NOW - 301
    assert scene.client.validate().code == "CLOCK_TAMPERED"


def test_a_clock_that_was_set_back_does_not_keep_anyone_from_a_server(scene: Scene) -> None:
    scene.clock.now = NOW - 86_400 * 365
    scene.online_again()
    assert scene.client.validate().code == "VALID"


# -- another machine, another key, a damaged file ---------------------------------------------------------------------


def test_a_token_copied_to_another_machine_is_refused(scene: Scene) -> None:
    assert scene.elsewhere(fingerprint="ffffffffffffffff").validate().code == "TOKEN_INVALID"


def test_a_token_under_another_keys_name_is_refused(scene: Scene) -> None:
    other = scene.elsewhere(key="PROT-0000-1111-2222-3333")
    assert other.validate().code == "NO_SERVER"
    name = f"{PRODUCT}-{jws.digest('PROT-0000-1111-2222-3333')[:16]}.lease.json"
    scene.token_file.rename(scene.token_file.with_name(name))
    assert other.validate().code == "TOKEN_INVALID"


def test_without_a_fingerprint_no_token_is_used(scene: Scene) -> None:
    assert scene.elsewhere(fingerprint=None).validate().code == "NO_SERVER"


DAMAGE = {
    "emptied": "",
    "cut": '{"format": 1, "token": "eyJ',
    "a list": "[]",
    "nested without end": "[" * 100_000,
    "another format": json.dumps({"format": 2, "token": "x"}),
    "no token": json.dumps({"format": 1}),
    "nonsense": json.dumps({"format": 1, "token": "a.b.c"}),
    "a stranger's": json.dumps({"format": 1, "token": lease(private=STRANGER)}),
    "of another key": json.dumps({"format": 1, "token": lease(kh="A" * 43)}),
    "of another product": json.dumps({"format": 1, "token": lease(aud="paint-pro")}),
}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_or_foreign_file_is_refused_and_the_way_back_online_works(text: str, scene: Scene) -> None:
    scene.token_file.write_text(text)
    assert (scene.client.validate().valid, scene.client.validate().code) == (False, "TOKEN_INVALID")
    scene.online_again(token=lease())
    assert scene.client.validate().code == "VALID"
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_a_file_that_is_not_text_is_refused(scene: Scene) -> None:
    scene.token_file.write_bytes(b"\xff\xfe\x00")
    assert scene.client.validate().code == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "token", [lease(private=STRANGER), lease(fp="0000"), lease(kh="A" * 43), lease(aud="x"), "a.b.c", "", 5, None]
)
def test_a_token_that_is_not_ours_is_not_saved_over_a_good_one(token: Any, scene: Scene) -> None:
    before = scene.token_file.read_text()
    scene.online_again(token=token)
    assert scene.client.validate().code == "VALID"
    assert scene.token_file.read_text() == before


def test_a_token_that_a_relay_put_beside_the_verdict_is_not_saved(scene: Scene) -> None:
    before, older = scene.token_file.read_text(), lease(at=NOW - 1_000, ttl=2_000)

    def relay(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return answered(verdict(path, body, headers, token=lease(jti="3")), older)

    scene.servers.behave[SERVERS[0]] = relay
    assert scene.client.validate().code == "VALID"
    assert scene.token_file.read_text() == before


def test_an_older_token_of_a_late_answer_is_not_saved_over_a_newer_one(scene: Scene) -> None:
    scene.online_again(at=NOW + 50, token=lease(at=NOW + 50))
    scene.client.validate()
    before = scene.token_file.read_text()
    scene.online_again(at=NOW + 51, token=lease(at=NOW + 20))
    assert scene.client.validate().code == "VALID"
    assert scene.token_file.read_text() == before


# -- what deletes it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["BANNED", "SUSPENDED", "EXPIRED", "NOT_FOUND"])
def test_a_decided_denial_deletes_the_token(code: str, scene: Scene) -> None:
    scene.servers.behave[SERVERS[0]] = denies(code)
    assert scene.client.validate().code == code
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "NO_SERVER"


@pytest.mark.parametrize("code", ["OVERDUE", "NO_MACHINES", "USES_EXHAUSTED", "VERSION_SCOPE_MISMATCH"])
def test_other_denials_do_not(code: str, scene: Scene) -> None:
    scene.servers.behave[SERVERS[0]] = denies(code)
    assert scene.client.validate().code == code
    assert scene.token_file.exists()


def test_expired_but_in_grace_is_no_denial(scene: Scene) -> None:
    scene.online_again(code="EXPIRED", valid=True)
    result = scene.client.validate()
    assert (result.valid, result.code) == (True, "EXPIRED")
    assert scene.token_file.exists()


def test_giving_the_seat_back_deletes_it(scene: Scene) -> None:
    scene.online_again()
    assert scene.client.deactivate().valid
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "NO_SERVER"


@pytest.mark.parametrize("ends_by", ["deactivate", "validate"])
def test_a_token_that_has_been_deleted_does_not_come_back_with_a_late_answer(ends_by: str, scene: Scene) -> None:
    """The answer to a heartbeat in another thread was given before, and arrives after."""
    asked, is_over = threading.Event(), threading.Event()
    ends = denies("SUSPENDED") if ends_by == "validate" else says()

    def behave(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        if path != "/v1/ping":
            return ends(path, body, headers)
        asked.set()
        assert is_over.wait(60)
        return says(token=lease())(path, body, headers)

    scene.servers.behave[SERVERS[0]] = behave
    with ThreadPoolExecutor(1) as threads:
        heartbeat = threads.submit(scene.client.ping)
        assert asked.wait(60)
        getattr(scene.client, ends_by)()
        is_over.set()
        assert heartbeat.result().valid
    assert scene.client.status().code == "NO_SERVER"


@pytest.mark.parametrize("code", ["BANNED", "SUSPENDED", "EXPIRED", "NOT_FOUND"])
def test_a_denial_of_another_ledger_never_deletes_the_token(code: str, scene: Scene) -> None:
    before = scene.token_file.read_text()
    scene.online_again(code=code, led="ledger-2")
    result = scene.client.validate()
    assert (result.valid, result.code, result.source) == (False, code, "server")
    assert scene.token_file.read_text() == before
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_a_denial_that_comes_with_a_token_grants_nothing(tmp_path: Path) -> None:
    servers = Servers(denies("NO_MACHINES", token=lease()))
    client = client_of(servers, tmp_path)
    client.validate()
    assert client.status().code == "NO_SERVER"


# -- the files --------------------------------------------------------------------------------------------------------


def test_the_token_file_is_as_documented(scene: Scene) -> None:
    assert scene.token_file.name == f"{PRODUCT}-{jws.digest(KEY)[:16]}.lease.json"
    saved = json.loads(scene.token_file.read_text())
    assert saved == {
        "format": 1, "product": PRODUCT, "kh": jws.digest(KEY), "fp": FINGERPRINT, "server": SERVERS[0],
        "token": saved["token"],
    }  # fmt: skip
    assert [json.loads(path.read_text()) for path in scene.floors()] == [{"format": 1, "floor": NOW, "local": NOW}] * 2


@pytest.mark.skipif(os.name != "posix", reason="modes are Posix's")
def test_the_files_are_their_owners_alone(scene: Scene) -> None:
    for path in (scene.token_file, *scene.floors()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO on this system")
@pytest.mark.parametrize("read", [False, True], ids=["without a reader", "with a reader"])
def test_a_fifo_under_a_files_name_holds_nobody_up(read: bool, scene: Scene) -> None:
    names = ["license_server_used.txt", "license_server_failover.txt", OFFLINE]
    fifos = [*(scene.folder / name for name in names), scene.token_file, *scene.floors(), scene.folder / "servers.json"]
    for path in fifos:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in fifos] if read else []
    scene.servers.behave[SERVERS[0]] = gone()
    assert scene.client.validate().code == "TOKEN_INVALID"
    scene.online_again(token=lease())
    assert scene.client.validate().code == "VALID"
    for reader in readers:
        os.close(reader)


def test_a_disk_that_refuses_changes_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "folder"
    servers = Servers(says(token=lease()))
    client = client_of(servers, tmp_path, state_dir=nowhere, floor_dir=nowhere, log_dir=nowhere)
    assert client.validate().code == "VALID"
    servers.behave[SERVERS[0]] = gone()
    assert not client.validate().valid


def test_status_asks_nobody_and_changes_nothing(scene: Scene) -> None:
    before = {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}
    scene.servers.asked.clear()
    assert scene.client.status().code == "OFFLINE_VALID"
    assert scene.servers.asked == []
    assert {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()} == before


# -- a file that another program holds --------------------------------------------------------------------------------


def held(part: float) -> Any:
    """A reader of files that a virus scanner opens for itself again and again, for so much of each 60 ms."""
    read = files._text_of

    def read_between(path: Path) -> str:
        if time.monotonic() % 0.06 < 0.06 * part:
            raise PermissionError(f"{path.name} is held")
        return read(path)

    return read_between


def test_a_file_that_is_held_for_a_moment_is_read_in_the_next(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_text_of", held(0.5))
    assert {scene.client.validate().code for _ in range(5)} == {"OFFLINE_VALID"}


def test_a_file_that_stays_held_is_not_damaged(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as scanner:
        scanner.setattr(files, "_text_of", held(1))
        scanner.setattr(files, "_PATIENCE_S", 0.02)
        result = scene.client.validate()
    assert (result.valid, result.code) == (False, "NO_SERVER")
    assert result.detail == (
        "no server gave a verdict, and the saved token cannot be read now: another program holds its file"
    )
    assert scene.client.validate().code == "OFFLINE_VALID"


def test_one_jwks_is_as_good_as_a_list_of_keys(tmp_path: Path) -> None:
    jwk = jws.jwk_of(VENDOR)
    for given in (jwk, {"keys": [jwk]}, [jwk], [{"keys": [jwk]}]):
        assert client_of(Servers(says()), tmp_path, public_keys=given).validate().valid
