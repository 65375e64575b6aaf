"""What a client says when it is not let in: the most telling of what its attempts met, in both languages."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from license_client import ConfigurationError, Reply, TransportFailed
from license_client.causes import Cause, Failure, diagnosis
from license_client.texts import LANGUAGES, cause_text, detail_of
from tests.unit.clients.support import NOW, Behaviour, Clock, Servers, client_of, gone, lease, problem, says

DAY = 86_400


def answers(status: int, **headers: str) -> Behaviour:
    return lambda *_: Reply(status, b"", {name.replace("_", "-"): text for name, text in headers.items()})


def fails(reason: str, **more: Any) -> Behaviour:
    def behave(*_: Any) -> Reply:
        raise TransportFailed(reason, **more)

    return behave


def skewed(by: int) -> Behaviour:
    return problem(401, "TIMESTAMP_SKEWED", ts=NOW + by)


MET: dict[str, tuple[list[Behaviour], str, str]] = {
    "429 in seconds": (
        [answers(429, retry_after="241")],
        "too many attempts, try again in 5 minutes", "tentativas demais, tente de novo em 5 minutos",
    ),
    "429, one minute": (
        [answers(429, retry_after="12")],
        "too many attempts, try again in 1 minute", "tentativas demais, tente de novo em 1 minuto",
    ),
    "429 until a date": (
        [answers(429, date="Mon, 24 Nov 2025 16:00:00 GMT", retry_after="Mon, 24 Nov 2025 16:02:00 GMT")],
        "too many attempts, try again in 2 minutes", "tentativas demais, tente de novo em 2 minutos",
    ),
    "429 without a time": (
        [answers(429, retry_after="soon")],
        "too many attempts, try again later", "tentativas demais, tente de novo mais tarde",
    ),
    "the sooner of two": (
        [answers(429, retry_after="600"), answers(429, retry_after="120")],
        "too many attempts, try again in 2 minutes", "tentativas demais, tente de novo em 2 minutos",
    ),
    "407": (
        [answers(407)],
        "a proxy stands between this PC and the license servers, and does not let the program through",
        "há um proxy entre este PC e os servidores de licenças, e ele não deixa o programa passar",
    ),
    "a proxy that refuses to connect": (
        [fails("proxy")],
        "a proxy stands between this PC and the license servers, and does not let the program through",
        "há um proxy entre este PC e os servidores de licenças, e ele não deixa o programa passar",
    ),
    "TLS interception": (
        [fails("tls"), gone("timeout")],
        "a proxy stands between this PC and the license servers: their certificates are not trusted",
        "há um proxy entre este PC e os servidores de licenças: seus certificados não são confiáveis",
    ),
    "a certificate that is not yet valid": (
        [fails("tls date", not_before=NOW + 400 * DAY)],
        "this PC's clock is off by about 400 days", "o relógio deste PC está errado em cerca de 400 dias",
    ),
    "a certificate with no date to be had": (
        [fails("tls date")],
        "this PC's clock is off, or a server's certificate has ended",
        "o relógio deste PC está errado, ou o certificado de um servidor venceu",
    ),
    "skewed to the end, one day": (
        [skewed(-DAY - 4_000)],
        "this PC's clock is off by about 1 day", "o relógio deste PC está errado em cerca de 1 dia",
    ),
    "skewed by hours": (
        [skewed(5 * 3_600)],
        "this PC's clock is off by about 5 hours", "o relógio deste PC está errado em cerca de 5 horas",
    ),
    "an access key of an old version": (
        [problem(401, "API_KEY_INVALID")],
        "this program's access key is not accepted any more: ask the vendor for an update",
        "a chave de acesso deste programa já não é aceita: peça uma atualização ao fornecedor",
    ),
    "a secret of an old version": (
        [problem(401, "SIGNATURE_INVALID")],
        "this program's access key is not accepted any more: ask the vendor for an update",
        "a chave de acesso deste programa já não é aceita: peça uma atualização ao fornecedor",
    ),
    "a network's login page": (
        [lambda *_: Reply(200, b"<html>"), answers(302)],
        "something else answers in place of the license servers, perhaps the login page of a network",
        "outra coisa responde no lugar dos servidores de licenças, talvez a página de login de uma rede",
    ),
    "servers in trouble": (
        [problem(503, "LEDGER_UNAVAILABLE"), gone("timeout")],
        "the license servers cannot answer just now: try again in some minutes",
        "os servidores de licenças não podem responder agora: tente de novo em alguns minutos",
    ),
    "nothing": (
        [gone(), gone("timeout"), gone("name")],
        "no server gave a verdict, and no token is saved", "nenhum servidor respondeu, e não há token salvo",
    ),
    "another product before all": (
        [answers(429), problem(401, "API_KEY_INVALID"), says(aud="paint-pro")],
        "no server gave a verdict for this product: the license is for another one",
        "nenhum servidor respondeu por este produto: a licença é de outro",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("servers", "english", "portuguese"), MET.values(), ids=MET.keys())
def test_the_text_follows_from_the_attempts(
    servers: list[Behaviour], english: str, portuguese: str, tmp_path: Path
) -> None:
    for language, text in (("en", english), ("pt", portuguese)):
        result = client_of(Servers(*servers), tmp_path / language, language=language).validate()
        assert (result.code, result.detail) == ("NO_SERVER", text)


def test_the_saved_token_is_in_the_text_too(tmp_path: Path) -> None:
    servers = Servers(says(token=lease()))
    client = client_of(servers, tmp_path)
    client.validate()
    servers.behave |= dict.fromkeys(servers.behave, answers(429, retry_after="60"))
    result = client.validate()
    assert (result.code, result.detail) == (
        "OFFLINE_VALID", "too many attempts, try again in 1 minute, and the saved token holds",
    )  # fmt: skip
    assert client.status().detail == "the saved token holds"


def test_a_clock_below_what_it_has_shown_before_is_off_by_the_difference(tmp_path: Path) -> None:
    servers, clock = Servers(says(token=lease())), Clock()
    client = client_of(servers, tmp_path, clock)
    client.validate()
    servers.behave |= dict.fromkeys(servers.behave, fails("tls date"))
    clock.now -= 30 * DAY
    assert client.validate().detail == "this PC's clock is off by about 30 days, and the machine's clock was set back"


def test_of_servers_that_fail_in_different_ways_the_most_telling_counts_in_any_order() -> None:
    telling = [
        ("verdict refused: aud", Cause.OTHER_PRODUCT), ("status 401", Cause.ACCESS_KEY),
        ("status 429 RATE_LIMITED", Cause.RATE_LIMITED), ("tls date", Cause.CLOCK), ("status 407", Cause.PROXY),
        ("tls", Cause.INTERCEPTED), ("status 302", Cause.LOGIN_PAGE), ("status 502", Cause.BUSY),
        ("refused", Cause.UNREACHABLE),
    ]  # fmt: skip
    for (one, cause), (other, _) in itertools.combinations(telling, 2):
        for order in ([one, other], [other, one]):
            assert diagnosis([Failure(reason) for reason in order], now=NOW, floor=None).cause is cause


def test_both_languages_have_every_text_and_name_what_they_count() -> None:
    english, portuguese = LANGUAGES["en"], LANGUAGES["pt"]
    assert english.keys() == portuguese.keys()
    assert {*Cause} <= english.keys()
    assert all(("{n}" in english[name]) == ("{n}" in portuguese[name]) for name in english)
    assert detail_of("SUSPENDED", False, "pt") == "a licença está suspensa"
    assert cause_text(diagnosis([], now=NOW, floor=None), "pt") == "nenhum servidor respondeu"


def test_a_language_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="language"):
        client_of(Servers(says()), tmp_path, language="fr")
