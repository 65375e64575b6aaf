"""Which server is asked when, and whose answer decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from license_client import Reply
from tests.unit.clients.support import (
    KEY,
    NOW,
    SERVERS,
    STRANGER,
    Behaviour,
    Clock,
    Servers,
    answered,
    client_of,
    denies,
    gone,
    lease,
    lines,
    problem,
    says,
    verdict,
)

ONE, TWO, THREE = SERVERS


def html(path: str, body: bytes, headers: Any) -> Reply:
    return Reply(200, b"<html>valid</html>")


def forged(path: str, body: bytes, headers: Any) -> Reply:
    return answered(verdict(path, body, headers, private=STRANGER))


def of_another_key(path: str, body: bytes, headers: Any) -> Reply:
    return answered(verdict(path, body, headers, kh="A" * 43))


def replayed(path: str, body: bytes, headers: Any) -> Reply:
    return answered(verdict(path, body, headers, nonce="an-earlier-nonce"))


def says_so_unsigned(path: str, body: bytes, headers: Any) -> Reply:
    return Reply(200, json.dumps({"valid": True, "code": "VALID"}).encode())


NONSENSE: dict[str, tuple[Behaviour, str]] = {
    "refused": (gone(), "refused"),
    "silent": (gone("timeout"), "timeout"),
    "HTML": (html, "no verdict"),
    "nested without end": (lambda *_: Reply(200, b"[" * 100_000), "no verdict"),
    "a list": (lambda *_: Reply(200, b"[]"), "no verdict"),
    "unsigned": (says_so_unsigned, "no verdict"),
    "redirect": (lambda *_: Reply(302, b""), "status 302"),
    "500": (lambda *_: Reply(500, b"<html>"), "status 500"),
    "400": (problem(400, "MALFORMED"), "status 400 MALFORMED"),
    "429": (problem(429, "RATE_LIMITED"), "status 429 RATE_LIMITED"),
    "503": (problem(503, "LEDGER_UNAVAILABLE"), "status 503 LEDGER_UNAVAILABLE"),
    "a code that is no code": (problem(503, f"X\n{KEY}"), "status 503"),
    "forged": (forged, "verdict refused: kid"),
    "another key's": (of_another_key, "verdict refused: kh"),
    "replayed": (replayed, "verdict refused: nonce"),
    "another product's": (says(aud="paint-pro"), "verdict refused: aud"),
    "another machine's": (says(fp="0000"), "verdict refused: fp"),
    "another call's": (says(act="activate"), "verdict refused: act"),
}


@pytest.fixture(params=NONSENSE.values(), ids=NONSENSE.keys())
def nonsense(request: pytest.FixtureRequest) -> tuple[Behaviour, str]:
    found: tuple[Behaviour, str] = request.param
    return found


def test_the_first_server_decides(tmp_path: Path) -> None:
    servers = Servers(says(), denies("BANNED"))
    result = client_of(servers, tmp_path).validate()
    assert (result.valid, result.code, result.source, result.server) == (True, "VALID", "server", ONE)
    assert servers.asked == [ONE]
    assert result.attempts == ()


def test_what_is_around_the_claims_decides_nothing(tmp_path: Path) -> None:
    result = client_of(Servers(denies("SUSPENDED")), tmp_path).validate()
    assert (result.valid, result.code, result.detail) == (False, "SUSPENDED", "the license is suspended")


def test_nonsense_neither_denies_nor_validates(nonsense: tuple[Behaviour, str], tmp_path: Path) -> None:
    behave, reason = nonsense
    result = client_of(Servers(behave), tmp_path).validate()
    assert (result.valid, result.code, result.source) == (False, "NO_SERVER", "offline")
    assert [attempt.reason for attempt in result.attempts] == [reason] * 3


@pytest.mark.parametrize("decision", [says(), denies("BANNED")], ids=["valid", "denied"])
def test_after_nonsense_the_next_server_decides(
    nonsense: tuple[Behaviour, str], decision: Behaviour, tmp_path: Path
) -> None:
    result = client_of(Servers(nonsense[0], decision), tmp_path).validate()
    assert (result.source, result.server) == ("server", TWO)
    assert result.code in ("VALID", "BANNED")


def test_nonsense_does_not_take_the_saved_token_away(nonsense: tuple[Behaviour, str], tmp_path: Path) -> None:
    servers = Servers(says(token=lease()))
    client = client_of(servers, tmp_path)
    assert client.validate().valid
    servers.behave[ONE] = nonsense[0]
    assert client.validate().code == "OFFLINE_VALID"


# -- the order --------------------------------------------------------------------------------------------------------


def test_a_server_that_failed_is_not_asked_first_for_30_seconds(tmp_path: Path) -> None:
    servers, clock = Servers(gone("timeout"), says(), says()), Clock()
    client = client_of(servers, tmp_path, clock)
    assert client.validate().server == TWO
    assert servers.asked_since() == [ONE, TWO]
    for second in (0.1, 10, 29.9):
        clock.now = NOW + second
        assert client.validate().server == TWO
    assert servers.asked_since() == [TWO] * 3
    clock.now = NOW + 30
    client.validate()
    assert servers.asked_since() == [ONE, TWO]


def test_the_next_run_of_a_program_remembers_who_failed(tmp_path: Path) -> None:
    servers = Servers(gone(), says())
    client_of(servers, tmp_path).validate()
    client_of(servers, tmp_path, Clock(NOW + 5)).validate()
    assert servers.asked == [ONE, TWO, TWO]


def test_a_server_that_answers_again_is_first_again(tmp_path: Path) -> None:
    tries = iter([gone(), says()])
    servers = Servers(lambda *call: next(tries)(*call), denies("BANNED", as_of=NOW - 61))
    client = client_of(servers, tmp_path)
    assert client.validate().server == ONE
    assert servers.asked == [ONE, TWO, ONE]
    assert client.server_order() == [ONE, TWO]


def test_when_all_failed_the_one_that_failed_longest_ago_is_asked_first(tmp_path: Path) -> None:
    clock = Clock()

    def times_out(*call: Any) -> Reply:
        clock.now += 2
        return gone("timeout")(*call)

    servers = Servers(times_out, says(), times_out)
    client = client_of(servers, tmp_path, clock, budgets=(2.0,))
    client.validate()
    servers.behave[TWO] = times_out
    client.validate()
    assert servers.asked == [ONE, TWO, TWO, THREE, ONE]
    assert client.server_order() == [TWO, THREE, ONE]


def test_a_failure_that_lies_ahead_because_the_clock_was_set_back_is_forgotten(tmp_path: Path) -> None:
    servers, clock = Servers(gone(), says()), Clock()
    client = client_of(servers, tmp_path, clock)
    client.validate()
    clock.now -= 3_600
    assert client.server_order() == [ONE, TWO]


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for text in ("no JSON", "[]", '{"failed_at": 5}', '{"failed_at": {"https://one.example": "x"}}'):
        (tmp_path / "state" / "servers.json").write_text(text)
        assert client_of(Servers(says(), says()), tmp_path).server_order() == [ONE, TWO]


# -- the passes -------------------------------------------------------------------------------------------------------


def test_three_passes_and_their_budgets(tmp_path: Path) -> None:
    servers = Servers(gone(), gone())
    client_of(servers, tmp_path).validate()
    assert servers.asked == [ONE, TWO] * 3
    assert [sent[3] for sent in servers.sent] == pytest.approx([2, 2, 5, 5, 60, 60], abs=1)


def test_with_a_usable_token_nobody_waits_for_a_host_to_wake(tmp_path: Path) -> None:
    servers = Servers(says(token=lease()), says())
    client = client_of(servers, tmp_path)
    client.validate()
    servers.behave |= {ONE: gone("timeout"), TWO: gone("timeout")}
    servers.asked.clear()
    assert client.validate().code == "OFFLINE_VALID"
    assert len(servers.asked) == 4


def test_a_token_that_has_ended_does_not_keep_the_third_pass_away(tmp_path: Path) -> None:
    servers, clock = Servers(says(token=lease(ttl=100))), Clock()
    client = client_of(servers, tmp_path, clock)
    client.validate()
    servers.behave[ONE] = gone()
    servers.asked.clear()
    clock.now += 100
    assert client.validate().code == "OFFLINE_EXPIRED"
    assert len(servers.asked) == 3


def test_a_server_that_wakes_in_a_later_pass_decides(tmp_path: Path) -> None:
    servers = Servers(gone("timeout"))
    tries = iter([gone("timeout"), gone("timeout"), says()])
    servers.behave[ONE] = lambda *call: next(tries)(*call)
    assert client_of(servers, tmp_path).validate().code == "VALID"


# -- provisional denials ----------------------------------------------------------------------------------------------


def test_a_stale_denial_asks_the_others_first(tmp_path: Path) -> None:
    result = client_of(Servers(denies("BANNED", as_of=NOW - 61), says()), tmp_path).validate()
    assert (result.valid, result.server) == (True, TWO)
    assert result.attempts[0].reason == "provisional BANNED"


def test_a_denial_of_60_seconds_is_fresh(tmp_path: Path) -> None:
    servers = Servers(denies("BANNED", as_of=NOW - 60), says())
    assert client_of(servers, tmp_path).validate().code == "BANNED"
    assert servers.asked == [ONE]


def test_a_stale_denial_decides_when_nobody_knows_better(tmp_path: Path) -> None:
    servers = Servers(denies("SUSPENDED", as_of=NOW - 3_600), gone(), denies("BANNED", as_of=NOW - 100))
    client = client_of(servers, tmp_path)
    result = client.validate()
    assert (result.code, result.source, result.server) == ("BANNED", "server", THREE)
    assert servers.asked == [ONE, TWO, THREE, TWO]
    assert client.server_order() == [ONE, THREE, TWO]


def test_a_stale_approval_is_no_denial(tmp_path: Path) -> None:
    servers = Servers(says(as_of=NOW - 86_400), denies("BANNED"))
    assert client_of(servers, tmp_path).validate().code == "VALID"


# -- a wrong clock ----------------------------------------------------------------------------------------------------


def skewed_unless_within_300_s_of(true_time: int) -> Behaviour:
    def behave(path: str, body: bytes, headers: Any) -> Reply:
        if abs(int(headers["X-Timestamp"]) - true_time) > 300:
            return problem(401, "TIMESTAMP_SKEWED", ts=true_time)(path, body, headers)
        return says(at=true_time)(path, body, headers)

    return behave


def test_a_wrong_clock_is_no_reason_to_refuse(tmp_path: Path) -> None:
    servers, true_time = Servers(skewed_unless_within_300_s_of(NOW + 86_400)), NOW + 86_400
    client = client_of(servers, tmp_path)
    assert client.validate().code == "VALID"
    first, second = servers.sent
    assert second[2]["X-Timestamp"] == str(true_time)
    assert first[2]["X-Request-Id"] == second[2]["X-Request-Id"]
    assert client.validate().code == "VALID"
    assert len(servers.sent) == 3, "what the clock is off by was not remembered"


def test_a_server_that_always_says_skewed_is_re_signed_for_once(tmp_path: Path) -> None:
    servers = Servers(problem(401, "TIMESTAMP_SKEWED", ts=NOW + 9_999), says())
    result = client_of(servers, tmp_path).validate()
    assert servers.asked == [ONE, ONE, TWO]
    assert result.server == TWO


@pytest.mark.parametrize("ts", [0, NOW + 9_999, 2**40 - 1])
def test_a_time_that_no_verdict_came_with_is_for_that_server_only(ts: int, tmp_path: Path) -> None:
    servers = Servers(problem(401, "TIMESTAMP_SKEWED", ts=ts), says())
    result = client_of(servers, tmp_path).validate()
    assert (result.code, result.server) == ("VALID", TWO)
    assert [sent[2]["X-Timestamp"] for sent in servers.sent] == [str(NOW), str(ts), str(NOW)]


@pytest.mark.parametrize("ts", [None, "1764000000", 1.5, True, -1, 2**60, 10**400])
def test_a_time_that_is_none_is_not_signed(ts: Any, tmp_path: Path) -> None:
    servers = Servers(problem(401, "TIMESTAMP_SKEWED", ts=ts), says())
    client_of(servers, tmp_path).validate()
    assert servers.asked == [ONE, TWO]


# -- what stays the same over tries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["activate", "deactivate", "usage", "validate"])
def test_one_request_id_over_all_tries_and_another_nonce_for_each(act: str, tmp_path: Path) -> None:
    servers = Servers(gone(), gone("timeout"), problem(503, "QUEUE_FULL"))
    result = getattr(client_of(servers, tmp_path), act)()
    assert len(servers.sent) == 9
    assert {sent[2]["X-Request-Id"] for sent in servers.sent} == {result.request_id}
    assert len({sent[1].pop("nonce") for sent in servers.sent}) == 9
    assert all(sent[1] == servers.sent[0][1] for sent in servers.sent)


def test_two_calls_are_two_ids_and_an_id_can_be_given_again(tmp_path: Path) -> None:
    servers = Servers(says())
    client = client_of(servers, tmp_path)
    first, second = client.usage(), client.usage()
    assert first.request_id != second.request_id
    assert client.usage(request_id=first.request_id).request_id == first.request_id


# -- the log files ----------------------------------------------------------------------------------------------------


def test_what_the_log_files_say(tmp_path: Path) -> None:
    servers = Servers(gone(), says(token=lease()))
    client = client_of(servers, tmp_path)
    client.validate()
    at = "2025-11-24T16:00:00Z"
    assert lines(tmp_path, "license_server_failover.txt") == [[at, ONE, "refused"]]
    assert lines(tmp_path, "license_server_used.txt") == [[at, TWO, "validate VALID"]]
    assert lines(tmp_path, "license_offline_success.txt") == []
    servers.behave[TWO] = gone("timeout")
    client.ping()
    assert lines(tmp_path, "license_offline_success.txt") == [[at, "offline", "ping OFFLINE_VALID"]]
    walked = [line[1:] for line in lines(tmp_path, "license_server_failover.txt")[1:]]
    assert walked == [[TWO, "timeout"], [ONE, "refused"], [ONE, "refused"], [TWO, "timeout"]]


def test_no_key_is_ever_written(tmp_path: Path) -> None:
    echo: Behaviour = lambda path, body, headers: Reply(503, json.dumps({"code": KEY}).encode())  # noqa: E731
    servers = Servers(echo, says(token=lease()))
    client_of(servers, tmp_path).validate()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 5
    assert not [path for path in written if KEY in path.read_text()]


def test_a_log_that_grows_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("license_client.text_logs.LIMIT", 100)
    client = client_of(Servers(says()), tmp_path)
    for _ in range(10):
        client.validate()
    assert (tmp_path / "license_server_used.txt").stat().st_size < 200
    assert (tmp_path / "license_server_used.old").exists()


def test_a_link_laid_in_the_temporary_folder_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / "license_server_used.txt").symlink_to(victim)
    assert client_of(Servers(says()), tmp_path).validate().valid
    assert victim.read_text() == ""
