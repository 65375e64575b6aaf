"""Requests as bytes at a node as it is deployed: no two readers see two things in them, and none costs others."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.ledger.database import Database
from tests.e2e.test_unread_exports import check
from tests.fuzz.http_answers import Response, answers
from tests.fuzz.http_calls import LAST, Known, head, in_chunks, with_length
from tests.fuzz.http_cases import CHUNKED, GARBLED, LENGTHS
from tests.support.nodes import API_KEY, SHARED_SECRET, Sold, environment, license_row, sell
from tests.support.processes import ROOT, ServerProcess, until

_NONCE = "n" * 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    env = environment(f"sqlite:///{folder}/ledger.db", folder, WEB_CONCURRENCY="2")
    with ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as server:
        until(lambda: server.answers("/readyz"), "a node that is ready", 60)
        yield server


@pytest.fixture(scope="module")
def database(server: ServerProcess, folder: Path) -> Iterator[Database]:
    with contextlib.closing(Database(f"sqlite:///{folder}/ledger.db")) as database:
        yield database


@pytest.fixture(scope="module")
def customer(database: Database) -> Sold:
    return sell(database)


@pytest.fixture(scope="module")
def untouched(database: Database) -> Sold:
    """A license that only hidden calls name."""
    return sell(database)


@pytest.fixture
def known(customer: Sold, untouched: Sold) -> Known:
    return Known(API_KEY, SHARED_SECRET, customer.key, untouched.key)


def answered(server: ServerProcess, raw: bytes, *, ends: bool = False) -> list[Response]:
    """All answers on a connection to its end. `ends`: nothing more comes behind `raw`, and that is said."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        received = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(raw)
            if ends:
                client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65_536):
                received += part
    return answers(received, ())


def assert_nothing_hidden(server: ServerProcess, database: Database, untouched: Sold, raw: bytes) -> None:
    """Of `raw` and a request behind it, one at most is answered, and the call in it is not carried out.

    Chunks beside a length are read as chunks, as RFC 9112 has it, and nothing else by that connection.
    """
    got = answered(server, raw + LAST)
    assert len(got) <= 1, got
    assert all(answer.status in (400, 413, 415, 401) or (answer.status == 200 and answer.ends) for answer in got), got
    row = license_row(database, untouched)
    assert (row["uses"], row["last_seen_at"]) == (0, None)
    assert server.answers("/livez")


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_a_length_that_is_none_hides_no_request(
    server: ServerProcess, database: Database, untouched: Sold, known: Known, number: int
) -> None:
    top, body = known.check(_NONCE)
    whole = body + known.hidden(_NONCE)
    lines = LENGTHS[number](b"%d" % len(body), b"%d" % len(whole))
    assert_nothing_hidden(server, database, untouched, top + lines + b"\r\n\r\n" + whole)


@pytest.mark.parametrize("line", CHUNKED)
@pytest.mark.parametrize("first", ["length", "chunks"])
def test_a_length_beside_chunks_hides_no_request(
    server: ServerProcess, database: Database, untouched: Sold, known: Known, line: bytes, first: str
) -> None:
    top, body = known.check(_NONCE)
    chunks = in_chunks(random.Random(1), body) + known.hidden(_NONCE)
    lines = [b"Content-Length: %d" % len(chunks), line]
    raw = top + b"\r\n".join(lines if first == "length" else lines[::-1]) + b"\r\n\r\n" + chunks
    assert_nothing_hidden(server, database, untouched, raw)


@pytest.mark.parametrize("number", range(len(GARBLED)))
def test_chunks_that_are_garbled_hide_no_request(
    server: ServerProcess, database: Database, untouched: Sold, known: Known, number: int
) -> None:
    top, body = known.check(_NONCE)
    garbled = GARBLED[number](body[:9], body[9:]) + known.hidden(_NONCE)
    assert_nothing_hidden(server, database, untouched, top + b"Transfer-Encoding: chunked\r\n\r\n" + garbled)


@pytest.mark.parametrize("size", [65_537, 70_000, 2**63 - 1])
def test_a_body_that_is_too_large_hides_no_request(
    server: ServerProcess, database: Database, untouched: Sold, known: Known, size: int
) -> None:
    top, _ = known.check(_NONCE)
    raw = top + b"Content-Length: %d\r\n\r\n" % size + known.hidden(_NONCE)
    assert_nothing_hidden(server, database, untouched, raw)


@pytest.mark.parametrize("name", ["X-API-Key", "X-Request-Id", "X-Timestamp", "X-Signature"])
@pytest.mark.parametrize("again", ["", "other", None])
def test_a_field_of_who_calls_that_comes_twice_lets_nobody_in_as_another(
    server: ServerProcess, known: Known, name: str, again: str | None
) -> None:
    body = b'{"key": "%s", "nonce": "%s"}' % (known.key.encode(), _NONCE.encode())
    fields = known.headers("/v1/validate", body)
    for lines in ([fields[name], again or fields[name]], [again or fields[name], fields[name]]):
        rest = {other: text for other, text in fields.items() if other != name}
        twice = "".join(f"{name}: {text}\r\n" for text in lines).encode()
        [answer, _] = answered(server, with_length(head("POST", "/v1/validate", rest) + twice, body) + LAST)
        assert answer.status in (400, 401)


_ODD_HEADS = {
    "a folded line": b"X-Any: 1\r\n\tfolded",
    "a folded length": b"Content-Length:\r\n 0",
    "a bare CR": b"X-Any: 1\rX-API-Key: other",
    "a NUL": b"X-Any: \x00",
    "a space before the colon": b"Content-Length : 0",
    "h2c": b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "two hosts": b"Host: evil.example",
    "101 more": b"\r\n".join(b"X-%d: 1" % number for number in range(101)),
    "a head of 600 kB": b"X-Any: " + b"a" * 600_000,
}


@pytest.mark.parametrize("name", _ODD_HEADS)
def test_a_head_that_two_read_differently_gets_one_answer(server: ServerProcess, known: Known, name: str) -> None:
    top, body = known.check(_NONCE)
    got = answered(server, with_length(top + _ODD_HEADS[name] + b"\r\n", body) + LAST)
    # Refused, and the connection with it; or read as what it is, and so is the next.
    assert [answer.status for answer in got] in ([], [400], [431], [200, 200], [401, 200]), got
    assert server.answers("/livez")


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (b"PRI * HTTP/2.0", {400}),
        (b"GET http://other.example/v1/licenses HTTP/1.1", {401}),
        (b"GET http://x:y@z/../v1/licenses HTTP/1.1", {400, 401, 404}),
        (b"CONNECT x:443 HTTP/1.1", {400, 404, 405}),
        (b"OPTIONS * HTTP/1.1", {200, 204, 400, 404}),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1", {400, 414, 431, 404}),
        (b"GET / HTTP/9.9", {400}),
    ],
    ids=["preface", "whole address", "with a password", "tunnel", "asterisk", "long", "version"],
)
def test_a_first_line_of_another_kind_opens_nothing(server: ServerProcess, line: bytes, statuses: set[int]) -> None:
    got = answered(server, line + b"\r\nHost: x\r\nConnection: close\r\n\r\n", ends=True)
    assert {answer.status for answer in got} <= statuses, got
    assert server.answers("/livez")


def test_5_000_requests_at_once_of_which_no_answer_is_read_keep_no_customer(
    server: ServerProcess, customer: Sold
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            client.settimeout(0.2)
            with contextlib.suppress(OSError):
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)
        assert [check(server, customer) for _ in range(20)] == ["VALID"] * 20


def test_readers_of_readyz_keep_no_customer(server: ServerProcess, customer: Sold) -> None:
    end, asked = threading.Event(), list[bool]()

    def flood() -> None:
        while not end.is_set():
            asked.append(server.answers("/readyz"))

    with ThreadPoolExecutor(20) as pool:
        flooding = [pool.submit(flood) for _ in range(20)]
        try:
            codes = [check(server, customer) for _ in range(30)]
        finally:
            end.set()
        for each in flooding:
            each.result()
    assert codes == ["VALID"] * 30
    assert len(asked) > 30
