"""The Python client over real sockets against servers that do their worst: none denies, and none validates."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from license_client import LicenseClient, Result, TransportFailed
from license_client.transport import MAX_ANSWER, RequestsTransport
from tests.support.costs import Check, Round, costs_at_most
from tests.support.processes import until
from tests.unit.clients.sockets import (
    Conduct,
    Drips,
    Nasty,
    answers,
    certificate,
    good_json,
    http,
    refused_url,
    sends,
    silent,
)
from tests.unit.clients.support import (
    FINGERPRINT,
    KEY,
    PRODUCT,
    STRANGER,
    VENDOR,
    Behaviour,
    Clock,
    answered,
    denies,
    lease,
    says,
    verdict,
)
from tests.vectors import jws

#: Far more than any budget that is tested, far less than what a server would take that is not cut.
GENEROUS_S = 30.0

#: For servers that answer at once, on a machine that may not.
PATIENT_S = 30.0

VALID = says(token=None)


def client_of(urls: list[str], folder: Path, **changes: Any) -> LicenseClient:
    given: dict[str, Any] = {
        "product": PRODUCT, "key": KEY, "public_keys": [jws.jwk_of(VENDOR)], "fingerprint": FINGERPRINT,
        "state_dir": folder / "state", "log_dir": folder,
    }  # fmt: skip
    return LicenseClient(urls, **{**given, **changes})


def whole(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A good answer on the wire."""
    return http(200, VALID(path, body, headers).body)


def cut_short(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    good = VALID(path, body, headers).body
    return http(200, good[:-1], length=len(good))


def longer_than_it_says(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    good = VALID(path, body, headers).body
    return http(200, good, length=len(good) - 1)


def chunks_cut_off(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    good = VALID(path, body, headers).body
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(good) + 9, good)


def reset(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


NASTY: dict[str, Conduct] = {
    "HTML": sends(lambda *_: http(200, b"<html>valid</html>", "Content-Type: text/html")),
    "500": sends(lambda *_: http(500, b"<html>oops</html>")),
    "503": sends(lambda *_: http(503, b'{"code": "LEDGER_UNAVAILABLE"}')),
    "unsigned": sends(lambda path, body, _: http(200, good_json(path, body, _))),
    "forged": answers(lambda path, body, headers: answered(verdict(path, body, headers, private=STRANGER))),
    "a denial that is forged": answers(
        lambda path, body, headers: answered(verdict(path, body, headers, private=STRANGER, code="BANNED", valid=False))
    ),
    "another key's": answers(lambda path, body, headers: answered(verdict(path, body, headers, kh="A" * 43))),
    "short body": sends(cut_short),
    "longer than it says": sends(longer_than_it_says),
    "chunks cut off": sends(chunks_cut_off),
    "cut in the head": sends(lambda *_: b"HTTP/1.1 200 OK\r\nContent-Le"),
    "no HTTP": sends(lambda *_: b"220 mail.example ESMTP\r\n"),
    "compressed": sends(lambda path, body, _: http(200, b"\x1f\x8b\x08nonsense", "Content-Encoding: gzip")),
    "endless": sends(lambda *_: http(200, b"x" * (MAX_ANSWER + 1))),
    "closed without a word": lambda *_: None,
    "reset": reset,
    "accepted and silent": silent,
}


@contextlib.contextmanager
def server(behave: Behaviour) -> Iterator[Nasty]:
    with Nasty(answers(behave)) as running:
        yield running


@pytest.mark.parametrize("conduct", NASTY.values(), ids=NASTY.keys())
def test_a_nasty_server_alone_neither_denies_nor_validates(conduct: Conduct, tmp_path: Path) -> None:
    with Nasty(conduct) as nasty, client_of([nasty.url], tmp_path, budgets=(1.0,)) as client:
        result = client.validate()
        assert (result.valid, result.code, result.source) == (False, "NO_SERVER", "offline")
        assert len(result.attempts) == 1
        until(lambda: nasty.connections == 1, "the one connection")


@pytest.mark.parametrize("conduct", NASTY.values(), ids=NASTY.keys())
def test_a_nasty_server_alone_does_not_take_the_saved_token_away(conduct: Conduct, tmp_path: Path) -> None:
    with server(says(token=lease(at=int(time.time())))) as good, client_of([good.url], tmp_path) as client:
        assert client.validate().valid
    with Nasty(conduct) as nasty, client_of([nasty.url], tmp_path, budgets=(1.0,)) as client:
        for _ in range(2):
            result = client.validate()
            assert (result.valid, result.code, result.source) == (True, "OFFLINE_VALID", "offline")
            assert len(result.attempts) == 1


@pytest.mark.parametrize("conduct", NASTY.values(), ids=NASTY.keys())
@pytest.mark.parametrize("behave", [says(), denies("SUSPENDED")], ids=["valid", "denied"])
def test_behind_a_nasty_server_the_next_one_decides(behave: Behaviour, conduct: Conduct, tmp_path: Path) -> None:
    with Nasty(conduct) as nasty, server(behave) as good, client_of([nasty.url, good.url], tmp_path) as client:
        result = client.validate()
        assert (result.source, result.server) == ("server", good.url)
        assert result.code in ("VALID", "SUSPENDED")


def test_the_length_is_checked_and_named(tmp_path: Path) -> None:
    with Nasty(NASTY["short body"]) as nasty, client_of([nasty.url], tmp_path, budgets=(PATIENT_S,)) as client:
        assert [attempt.reason for attempt in client.validate().attempts] == ["short body"]


def test_a_redirect_is_not_followed_even_to_a_good_server(tmp_path: Path) -> None:
    with server(says()) as good:
        conduct = sends(lambda path, *_: http(307, b"", f"Location: {good.url}{path}"))
        with Nasty(conduct) as nasty, client_of([nasty.url], tmp_path, budgets=(PATIENT_S,)) as client:
            result = client.validate()
    assert [attempt.reason for attempt in result.attempts] == ["status 307"]
    assert good.connections == 0


def test_a_verdict_that_is_replayed_is_refused(tmp_path: Path) -> None:
    recorded: list[bytes] = []

    def replay(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        recorded.append(whole(path, body, headers))
        return recorded[0]

    with Nasty(sends(replay)) as nasty, client_of([nasty.url], tmp_path, budgets=(PATIENT_S,)) as client:
        assert client.validate().valid
        result = client.validate()
    assert result.code == "NO_SERVER"
    assert [attempt.reason for attempt in result.attempts] == ["verdict refused: nonce"]


def reasons(result: Result, url: str) -> set[str]:
    """Why this server did not decide, each time it was asked."""
    return {attempt.reason for attempt in result.attempts if attempt.server == url}


# -- one deadline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [0, 60], ids=["from the first byte", "after the head"])
def test_a_server_that_drips_is_cut_at_the_end_of_its_budget(at_once: int, tmp_path: Path) -> None:
    drips = Drips(whole, at_once, every=0.5)
    with Nasty(drips) as nasty, server(says()) as good, client_of([nasty.url, good.url], tmp_path) as client:
        began = time.monotonic()
        result = client.validate()
        took = time.monotonic() - began
        assert (result.valid, result.server) == (True, good.url)
        assert reasons(result, nasty.url) == {"timeout"}
        until(drips.was_cut.is_set, "the end of the connection")
    print(f"the answer came after {took:.2f} s; the drip would have taken {0.5 * 1_000:.0f} s")
    assert took < GENEROUS_S
    assert drips.sent < 30


def test_a_tls_handshake_that_drips_is_cut_too(tmp_path: Path) -> None:
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 16_380
    drips = Drips(lambda *_: record, 5, every=0.5)
    with Nasty(drips, reads=False) as nasty, server(says()) as good:
        urls = [nasty.url.replace("http:", "https:"), good.url]
        with client_of(urls, tmp_path, budgets=(2.0, PATIENT_S)) as client:
            result = client.validate()
        assert (result.valid, result.server) == (True, good.url)
        assert reasons(result, urls[0]) == {"timeout"}
        until(drips.was_cut.is_set, "the end of the connection")


def test_names_that_are_looked_up_for_ever_are_cut_and_never_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    released, look_up = threading.Event(), socket.getaddrinfo

    def slow(host: str, *more: Any, **named: Any) -> Any:
        released.wait(60)
        return look_up(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    before = set(threading.enumerate())
    with Nasty(sends(whole)) as nasty, contextlib.closing(RequestsTransport()) as transport:
        with pytest.raises(TransportFailed) as failed:
            transport.post(f"{nasty.url}/v1/validate", b"{}", {}, 0.5)
        assert failed.value.reason == "timeout"
        (left_behind,) = (each for each in set(threading.enumerate()) - before if each.name == "license-client")
        released.set()
        until(lambda: not left_behind.is_alive(), "the end of the exchange")
        assert nasty.requests == []


def test_a_name_that_nobody_knows_is_walked_past_and_logged_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def knows_others(host: Any, *more: Any, **named: Any) -> Any:
        if host == "nobody.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", knows_others)
    with Nasty(sends(whole)) as nasty, client_of(["https://nobody.invalid", nasty.url], tmp_path) as client:
        result = client.validate()
    assert (result.code, [attempt.reason for attempt in result.attempts]) == ("VALID", ["name"])
    (line,) = (tmp_path / "license_server_failover.txt").read_text().splitlines()
    assert line.endswith("name")


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    with Nasty(silent) as nasty, client_of([nasty.url], tmp_path, budgets=(0.3, 0.3)) as client:
        client.validate()
        until(lambda: not [t for t in threading.enumerate() if t.name == "license-client"], "the exchanges' end")


# -- one of three is dead ---------------------------------------------------------------------------------------------


def test_a_first_server_that_refuses_costs_02_s_once_and_then_nothing(tmp_path: Path) -> None:
    with refused_url() as dead:
        first_of_three(dead, "refused", 0.2, tmp_path)


@pytest.mark.slow
def test_a_first_server_that_is_silent_costs_22_s_once_and_then_nothing(tmp_path: Path) -> None:
    with Nasty(silent) as dead:
        first_of_three(dead.url, "timeout", 2.2, tmp_path)


def first_of_three(dead: str, reason: str, limit: float, folder: Path) -> None:
    """With the budgets as they are. The clients' clock is the test's: 30 s of it pass, and no more."""
    with server(says()) as two, server(says()) as three:
        good = [two.url, three.url]

        def measure() -> Round:
            now, own = Clock(time.time()), folder / uuid.uuid4().hex
            with (
                client_of([dead, *good], own / "three", now=now) as client,
                client_of(good, own / "two", now=now) as without,
            ):
                first, later, usual = timed(client), [], [timed(without)]
                for _ in range(10):
                    now.now += 2.99
                    later.append(timed(client))
                    usual.append(timed(without))
            return Round(first, later, usual)

        costs_at_most(limit, (dead, reason), measure)


def timed(client: LicenseClient) -> Check:
    began = time.monotonic()
    result = client.validate()
    took = time.monotonic() - began
    assert result.valid
    return Check(took, [(attempt.server, attempt.reason) for attempt in result.attempts])


# -- TLS --------------------------------------------------------------------------------------------------------------


def test_an_untrusted_certificate_is_no_server_and_a_trusted_one_is(tmp_path: Path) -> None:
    context, file = certificate(tmp_path)
    with Nasty(sends(whole), tls=context) as secured:
        with client_of([secured.url], tmp_path, budgets=(PATIENT_S,)) as client:
            result = client.validate()
            assert (result.code, [each.reason for each in result.attempts]) == ("NO_SERVER", ["tls"])
        assert secured.requests == []
        with client_of([secured.url], tmp_path, budgets=(PATIENT_S,), ca_bundle=file) as client:
            assert client.validate().valid


def test_whom_the_environment_and_the_system_trust_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SSL_CERT_FILE`; and the system's own folder, which OpenSSL finds by `SSL_CERT_DIR`, with `truststore`."""
    context, file = certificate(tmp_path)
    named = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(file)]
    name = subprocess.run(named, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / f"{name}.0").write_bytes(file.read_bytes())
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    with Nasty(sends(whole), tls=context) as secured:
        for variable, value in {"SSL_CERT_FILE": file, "SSL_CERT_DIR": tmp_path / "system"}.items():
            with monkeypatch.context() as environment:
                environment.setenv(variable, str(value))
                with client_of([secured.url], tmp_path / variable, budgets=(PATIENT_S,)) as client:
                    assert client.validate().valid, variable


def test_a_certificate_of_the_future_says_by_how_much_the_clock_is_off(tmp_path: Path) -> None:
    context, file = certificate(tmp_path, days_ahead=30)
    with (
        Nasty(sends(whole), tls=context) as secured,
        client_of([secured.url], tmp_path, budgets=(PATIENT_S,), ca_bundle=file) as client,
    ):
        result = client.validate()
    assert [attempt.reason for attempt in result.attempts] == ["tls date"]
    assert result.detail == "this PC's clock is off by about 30 days"
    assert secured.requests == []


def test_a_proxy_that_asks_for_a_password_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(connection: socket.socket, *_: object) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with Nasty(refuses, reads=False) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        with client_of(["https://license.example"], tmp_path, budgets=(PATIENT_S,)) as client:
            result = client.validate()
    assert [attempt.reason for attempt in result.attempts] == ["proxy"]
    assert "a proxy stands between" in result.detail


def test_this_machine_is_never_asked_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(says()) as good, refused_url() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        with client_of([good.url], tmp_path) as client:
            assert client.validate().valid


def test_offline_after_all_have_gone_and_back(tmp_path: Path) -> None:
    token = lease(at=int(time.time()))
    with server(says(token=token)) as one, client_of([one.url], tmp_path) as client:
        assert client.validate().valid
        one.close()
        assert client.validate().code == "OFFLINE_VALID"
    written = (tmp_path / "license_offline_success.txt").read_text().split("\t")
    assert written[1:] == ["offline", "validate OFFLINE_VALID\n"]
    assert json.loads(next((tmp_path / "state").glob("*.lease.json")).read_text())["token"] == token
