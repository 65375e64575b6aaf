"""What the AutoHotkey clients say when they are not let in, files that are held, and a proxy with a password."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.support.processes import ROOT, until
from tests.support.proxies import asks_who
from tests.support.wine import Json, Script, windows_path
from tests.support.wine_client import CALM, anew, call, clock, grants, new, outcome, reasons, results
from tests.support.wine_tls import Authority
from tests.unit.clients.sockets import Conduct, Nasty, answers, http, refused_url, sends

VALID = (True, "VALID", "server")
OFFLINE = (True, "OFFLINE_VALID", "offline")
SCANNER = ROOT / "tests" / "support" / "wine_scanner.ahk"
DAY = 86_400
#: 24 November 2025, 16:00:00 UTC
NOON = 1_764_000_000


def says(status: int, body: bytes = b"", *headers: str) -> Conduct:
    return sends(lambda *_: http(status, body, *headers))


DATE = "Date: Mon, 24 Nov 2025 16:00:00 GMT"
SKEWED = b'{"code": "TIMESTAMP_SKEWED", "ts": %d}'
#: What the servers answer, and what is said in English and in Portuguese. The machine's clock stands at `NOON`.
MET: list[tuple[list[Conduct], str, str]] = [
    (
        [says(429, b"", "Retry-After: 241")],
        "Too many attempts, try again in 5 minutes.", "Tentativas demais, tente de novo em 5 minutos.",
    ),
    (
        [says(429, b"", "Retry-After: Mon, 24 Nov 2025 16:00:50 GMT", DATE), says(500)],
        "Too many attempts, try again in 1 minute.", "Tentativas demais, tente de novo em 1 minuto.",
    ),
    (
        [says(429, b"", "Retry-After: soon")],
        "Too many attempts, try again later.", "Tentativas demais, tente de novo mais tarde.",
    ),
    (
        [says(407)],
        "A proxy stands between this PC and the license servers, and does not let the program through.",
        "Há um proxy entre este PC e os servidores de licenças, e ele não deixa o programa passar.",
    ),
    (
        [says(401, SKEWED % (NOON + 400 * DAY))],
        "This PC's clock is off by about 400 days.", "O relógio deste PC está errado em cerca de 400 dias.",
    ),
    (
        [says(401, SKEWED % (NOON - 5 * 3_600))],
        "This PC's clock is off by about 5 hours.", "O relógio deste PC está errado em cerca de 5 horas.",
    ),
    (
        [says(429, b"", "Retry-After: 60"), says(401, b'{"code": "API_KEY_INVALID"}')],
        "This program's access key is not accepted any more: ask the vendor for an update.",
        "A chave de acesso deste programa já não é aceita: peça uma atualização ao fornecedor.",
    ),
    (
        [says(302, b"", "Location: https://login.example/"), says(503)],
        "Something else answers in place of the license servers, perhaps a network's login page.",
        "Outra coisa responde no lugar dos servidores, talvez a página de login de uma rede.",
    ),
    (
        [says(503, b'{"code": "LEDGER_UNAVAILABLE"}')],
        "The license servers cannot answer just now. Please try again in some minutes.",
        "Os servidores de licenças não podem responder agora. Tente de novo em alguns minutos.",
    ),
]  # fmt: skip


def test_the_text_follows_from_the_attempts(ahk: Script, tmp_path: Path) -> None:
    """At last the clock is 30 days below what it has shown before: then a certificate is refused for that.

    Wine 8 does not say that a certificate is refused for its dates, which Windows does.
    """
    stranger = Authority("a stranger").tls(tmp_path, "localhost")
    steps: list[Json] = []
    with contextlib.ExitStack() as stack:
        for conducts, _, _ in MET:
            urls = [stack.enter_context(Nasty(conduct)).url for conduct in conducts]
            for language in ("en", "pt"):
                made = new(tmp_path, *urls, budgets=CALM[:1], language=language, registry=anew())
                steps += [made, clock(0, NOON), call("Validate")]
        tls = [stack.enter_context(Nasty(answers(grants()), tls=stranger))]
        grantor = stack.enter_context(Nasty(answers(grants())))
        limited = stack.enter_context(Nasty(says(429, b"", "Retry-After: 60")))
        gone = stack.enter_context(refused_url())
        for url in (*(each.url.replace("127.0.0.1", "localhost") for each in tls), grantor.url, limited.url, gone):
            steps += [new(tmp_path / "kept", url, budgets=CALM[:1], language="en", registry=anew()), call("Validate")]
        again = new(tmp_path / "kept", tls[0].url.replace("127.0.0.1", "localhost"), budgets=CALM[:1], language="en")
        steps += [again, clock(-30 * DAY), call("Validate")]
        told = results(ahk.run(steps))
    *met, intercepted, _, after, unreached, behind = [answer["detail"] for answer in told]
    assert met == [text for _, *both in MET for text in both]
    assert intercepted == "A proxy stands between this PC and the servers: their certificates are not trusted."
    assert after == "Too many attempts, try again in 1 minute. The program goes on with the saved token."
    assert unreached == "No server could be reached. The program goes on with the saved token."
    assert behind.startswith("This PC's clock is off by about 30 days. ")


def test_a_file_that_is_held_is_tried_again_and_is_not_damaged(ahk: Script, tmp_path: Path) -> None:
    """For 30 of every 60 ms; and for good."""
    kept, begun, end = tmp_path / "kept", tmp_path / "begun", tmp_path / "end"
    with Nasty(answers(grants())) as server, refused_url() as gone:
        ahk.run([new(kept, server.url), call("Validate")])
        (token,) = kept.glob("*.token")
        scanner = ahk.wine.start("v2", SCANNER, windows_path(token), windows_path(begun), windows_path(end))
        until(begun.exists, "the scanner is at work", 120)
        offline = [new(kept, gone, budgets=CALM[:1], language="en"), *[call("Validate")] * 8]
        told = results(ahk.run([*offline, call("Status")]))
        end.touch()
        ahk.wine.finish(scanner)
        hold = {"do": "hold", "path": windows_path(token)}
        held, free = results(ahk.run([offline[0], hold, call("Status"), {"do": "hold", "path": ""}, call("Status")]))
    assert {outcome(answer) for answer in told} == {OFFLINE}
    assert outcome(held) == (False, "NO_SERVER", "offline")
    assert held["detail"].startswith("The saved token cannot be read now")
    assert outcome(free) == OFFLINE


def test_without_localappdata_nothing_is_written_at_the_drives_root(ahk: Script, tmp_path: Path) -> None:
    with Nasty(answers(grants())) as server:
        made = new(tmp_path, server.url)
        del made["options"]["folder"]
        ahk.run([{"do": "env", "name": "LOCALAPPDATA", "text": ""}, made, call("Validate")])
    assert not [*Path("/").glob("protecao-license"), *(ahk.wine.prefix / "drive_c").glob("protecao-license")]
    assert list((ahk.wine.prefix / "drive_c" / "users").glob("*/AppData/Roaming/protecao-license/*.token"))


def test_a_proxy_with_a_password_lets_the_client_through(ahk: Script, tmp_path: Path) -> None:
    """Over plain HTTP: Wine 8 does not authenticate where it opens a tunnel, which Windows does."""
    with Nasty(asks_who("ana", "p@ss:1", answers(grants()))) as proxy, refused_url() as server:
        place = proxy.url.removeprefix("http://")
        ways: list[dict[str, str]] = [
            {"proxy": f"ana:p%40ss:1@{place}"}, {"proxy": place, "proxyUser": "ana", "proxyPassword": "p@ss:1"},
            {"proxy": place}, {"proxy": f"http://ana:wrong@{place}/"},
        ]  # fmt: skip
        made = [new(tmp_path / str(number), server, budgets=CALM[:1], **way) for number, way in enumerate(ways)]
        *told, bad = ahk.run(
            [*(step for each in made for step in (each, call("Validate"))), new(tmp_path, server, proxy="a/b")]
        )
    assert [outcome(answer) for answer in results(told)] == [VALID, VALID, *[(False, "NO_SERVER", "offline")] * 2]
    assert [reasons(answer) for answer in results(told)] == [[], [], ["status 407"], ["status 407"]]
    assert "proxy" in bad["thrown"]
