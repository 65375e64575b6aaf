"""The AutoHotkey clients against servers that do their worst: none denies, and none validates."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.processes import ROOT
from tests.support.wine import Script
from tests.support.wine_client import CALM, anew, call, denies_now, grants, new, outcome, reasons, results, whole
from tests.support.wine_tls import Authority
from tests.unit.clients.sockets import (
    Conduct,
    Drips,
    Nasty,
    answers,
    good_json,
    http,
    refused_url,
    sends,
    silent,
)
from tests.unit.clients.support import STRANGER, VENDOR, answered, verdict
from tests.vectors import jws

VALID = grants()
#: Milliseconds for servers that never come to an end.
SHORT = 700
MAX_ANSWER = 262_144


class Case(NamedTuple):
    """A server, the reason that is logged for it, and whether it takes its whole budget."""

    conduct: Conduct
    reason: str
    is_slow: bool = False


def good(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    return http(200, whole(VALID, path, body, headers))


def cut_short(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    answer = whole(VALID, path, body, headers)
    return http(200, answer[:-1], length=len(answer))


def chunks_cut_off(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    answer = whole(VALID, path, body, headers)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s" % (len(answer), answer[:-1])


def altered(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A denial made of a good verdict, under the good one's signature."""
    header, _, signature = json.loads(whole(VALID, path, body, headers))["verdict"].split(".")
    payload = verdict(path, body, headers, code="BANNED", valid=False).split(".")[1]
    return http(200, json.dumps({"verdict": ".".join((header, payload, signature))}).encode())


def replays() -> Conduct:
    """The first answer again and again; it was given to somebody else."""
    recorded: list[bytes] = []

    def make(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        if not recorded:
            recorded.append(good(path, json.dumps({**json.loads(body), "nonce": "n" * 16}).encode(), headers))
        return recorded[0]

    return sends(make)


def reset(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def signed(**changes: Any) -> Conduct:
    """Answers with a verdict of the vendor's, but for some of its claims, or its signer."""
    return answers(lambda *call: answered(verdict(*call, **changes)))


def cases() -> dict[str, Case]:
    denied = {"code": "BANNED", "valid": False}
    drip_head, drip_body = Drips(good, 0, 0.1), Drips(good, 120, 0.1)
    return {
        "HTML": Case(sends(lambda *_: http(200, b"<html>valid</html>", "Content-Type: text/html")), "no verdict"),
        "500": Case(sends(lambda *_: http(500, b"<html>oops</html>")), "status 500"),
        "503": Case(sends(lambda *_: http(503, b'{"code": "LEDGER_UNAVAILABLE"}')), "status 503 LEDGER_UNAVAILABLE"),
        "a problem named by HTML": Case(sends(lambda *_: http(400, b'{"code": "<b>"}')), "status 400"),
        "unsigned": Case(sends(lambda *call: http(200, good_json(*call))), "no verdict"),
        "a stranger's": Case(signed(private=STRANGER), "verdict refused: kid"),
        "forged": Case(sends(altered), "verdict refused: signature"),
        "forged denial": Case(
            answers(lambda *call: answered(_with_vendors_kid(verdict(*call, private=STRANGER, **denied)))),
            "verdict refused: signature",
        ),
        "another key's": Case(signed(kh=jws.digest("another")), "verdict refused: kh"),
        "another call's": Case(signed(rid="an-earlier-call"), "verdict refused: rid"),
        "of no call": Case(signed(rid=None), "verdict refused: rid"),
        "of no ledger": Case(signed(led=None), "verdict refused: claims"),
        "replayed": Case(replays(), "verdict refused: nonce"),
        "short body": Case(sends(cut_short), "short body"),
        "chunks cut off": Case(sends(chunks_cut_off), "no verdict"),
        "no HTTP": Case(sends(lambda *_: b"220 mail.example ESMTP\r\n"), "broken"),
        "endless": Case(sends(lambda *_: http(200, b"x" * (MAX_ANSWER + 1))), "body too large"),
        "closed without a word": Case(lambda *_: None, "broken"),
        "reset": Case(reset, "broken"),
        "silent": Case(silent, "timeout", is_slow=True),
        "drips from the first byte": Case(drip_head, "timeout", is_slow=True),
        "drips after the head": Case(drip_body, "timeout", is_slow=True),
    }


def _with_vendors_kid(token: str) -> str:
    """The header names the pinned key; the signature is still the stranger's."""
    _, payload, signature = token.split(".")
    ours = verdict("/v1/validate", b'{"key": "", "nonce": ""}', {"X-Request-Id": ""}, private=VENDOR).split(".")[0]
    return ".".join((ours, payload, signature))


#: Those that differ in how HTTP is spoken, not in what is answered.
HTTP_CASES = frozenset({
    "503", "forged", "short body", "chunks cut off", "no HTTP", "endless", "reset", "silent",
    "drips from the first byte", "drips after the head",
})  # fmt: skip


@contextlib.contextmanager
def all_servers() -> Iterator[dict[str, tuple[Case, Nasty]]]:
    with contextlib.ExitStack() as stack:
        yield {name: (case, stack.enter_context(Nasty(case.conduct))) for name, case in cases().items()}


@pytest.mark.parametrize("is_saved", [False, True], ids=["no token", "a saved token"])
def test_a_nasty_server_alone_neither_denies_nor_validates(is_saved: bool, ahk: Script, tmp_path: Path) -> None:
    """Where a token is saved, the token decides, after each of them: none takes it away."""
    with all_servers() as servers, Nasty(answers(VALID)) as other, Nasty(answers(VALID)) as grantor:
        redirect = Nasty(sends(lambda path, *_: http(307, b"", f"Location: {other.url}{path}")))
        with redirect, refused_url() as refused:
            steps = [new(tmp_path, grantor.url), call("Validate")] if is_saved else []
            for case, nasty in servers.values():
                steps += [new(tmp_path, nasty.url, budgets=(SHORT if case.is_slow else CALM[0],)), call("Validate")]
            steps += [new(tmp_path, redirect.url, budgets=CALM[:1]), call("Validate")]
            steps += [new(tmp_path, refused, budgets=CALM[:1]), call("Validate")]
            told = results(ahk.run(steps))[is_saved:]
        assert other.connections == 0
    named = dict(zip([*servers, "redirect", "refused"], told, strict=True))
    undecided = (True, "OFFLINE_VALID", "offline") if is_saved else (False, "NO_SERVER", "offline")
    assert {name: outcome(answer) for name, answer in named.items()} == dict.fromkeys(named, undecided)
    expected = {name: [case.reason] for name, (case, _) in servers.items()}
    assert {name: reasons(answer) for name, answer in named.items()} == {
        **expected, "redirect": ["status 307"], "refused": ["refused"],
    }  # fmt: skip
    assert {nasty.connections for case, nasty in servers.values() if not case.is_slow} == {1}
    offline = [line.split("\t")[1:] for line in ahk.wine.log("license_offline_success.txt")]
    assert offline == [["offline", "validate OFFLINE_VALID"]] * (len(named) if is_saved else 0)


def test_behind_a_nasty_server_the_next_one_decides(ahk: Script, tmp_path: Path) -> None:
    with all_servers() as servers, Nasty(answers(VALID)) as valid, Nasty(answers(denies_now("SUSPENDED"))) as denies:
        steps = []
        for case, nasty in servers.values():
            budgets = (SHORT, CALM[1]) if case.is_slow else CALM
            for decides in (valid, denies):
                steps += [new(tmp_path, nasty.url, decides.url, budgets=budgets, registry=anew()), call("Validate")]
        told = ahk.run(steps)[1::2]
    print("milliseconds", [answer["ms"] for answer in told])
    for number, (name, (case, nasty)) in enumerate(servers.items()):
        for answer, code, decides in zip(told[2 * number :], ("VALID", "SUSPENDED"), (valid, denies), strict=False):
            assert (answer["code"], answer["source"], answer["server"]) == (code, "server", decides.url), name
            assert [nasty.url, case.reason] in answer["attempts"], name


def test_a_handshake_that_never_ends_is_cut_too(ahk: Script, tmp_path: Path) -> None:
    """The server takes the connection and says nothing, whatever comes."""
    ended = threading.Event()
    with Nasty(lambda *_: ended.wait(60), reads=False) as mute, Nasty(answers(VALID)) as other:
        url = mute.url.replace("http://127.0.0.1", "https://localhost")
        behind, alone = results(
            ahk.run(
                [new(tmp_path, url, other.url, budgets=(SHORT, CALM[1])), call("Validate"),
                 new(tmp_path, url, budgets=(SHORT,)), call("Validate")]
            )
        )  # fmt: skip
        ended.set()
    assert (behind["code"], behind["server"]) == ("VALID", other.url)
    assert [url, "timeout"] in behind["attempts"]
    assert (outcome(alone), reasons(alone)) == ((True, "OFFLINE_VALID", "offline"), ["timeout"])


def test_an_untrusted_certificate_is_no_server_and_a_trusted_one_is(ahk: Script, tmp_path: Path) -> None:
    known, file = Authority("known"), tmp_path / "known.der"
    file.write_bytes(known.der)
    ahk.wine.trust(file)
    contexts = [authority.tls(tmp_path, "localhost") for authority in (Authority("a stranger"), known)]
    one, two = (Nasty(answers(VALID), tls=context) for context in contexts)
    with one, two:
        urls = [each.url.replace("127.0.0.1", "localhost") for each in (one, two)]
        stranger = [new(tmp_path, urls[0], budgets=CALM[:1]), call("Validate")]
        first, both, saved = results(ahk.run([*stranger, new(tmp_path, *urls), call("Validate"), *stranger]))
    assert (outcome(first), reasons(first)) == ((False, "NO_SERVER", "offline"), ["tls"])
    assert (both["code"], both["server"], reasons(both)) == ("VALID", urls[1], [])
    assert (outcome(saved), reasons(saved)) == ((True, "OFFLINE_VALID", "offline"), ["tls"])
    assert one.requests == []


def test_the_build_without_machine_code_holds_too(ahk: Script, tmp_path: Path) -> None:
    """Behind nasty servers, and in the background; what drips is cut in its headers and in its body."""
    ahk.build = "License-sync.ahk"
    text = (ROOT / "clients" / "ahk" / ahk.version / ahk.build).read_text(encoding="utf-8-sig")
    assert not re.search("VirtualProtect|VirtualAlloc|_Code64", text)
    with all_servers() as every, Nasty(answers(VALID)) as valid, refused_url() as refused:
        servers, steps = {name: every[name] for name in every if name in HTTP_CASES}, []
        for case, nasty in servers.values():
            budgets = (SHORT, CALM[1]) if case.is_slow else CALM
            steps += [new(tmp_path, nasty.url, valid.url, budgets=budgets, registry=anew()), call("Validate")]
        steps += [new(tmp_path, refused, budgets=CALM[:1], registry=anew()), call("Validate")]
        steps.append({"do": "begin", "milliseconds": 500, "act": "validate"})
        told = ahk.run([*steps, {"do": "await"}])
    *behind, offline, in_background = results(told)
    named = dict(zip(servers, behind, strict=True))
    assert {name: (outcome(answer), reasons(answer)) for name, answer in named.items()} == {
        name: ((True, "VALID", "server"), [case.reason]) for name, (case, _) in servers.items()
    }
    assert max(named[name]["ms"] for name, (case, _) in servers.items() if case.is_slow) < 10 * SHORT
    assert outcome(offline) == outcome(in_background) == (True, "OFFLINE_VALID", "offline")
