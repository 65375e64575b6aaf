"""A body that is cut short or garbled is refused, and nothing is done: half a request may ask for something else."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.ledger.database import Database
from tests.support.nodes import ADMIN_TOKEN, Sold, environment, events_of, license_row, sell, signed
from tests.support.processes import ROOT, ServerProcess, until

_BODY = b'{"days": 3}'
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_LENGTH = b"Content-Length: 11\r\n\r\n"

#: What follows the first headers. All but the first end there.
CUT = {
    "length, nothing": _LENGTH,
    "length, a part": _LENGTH + _BODY[:5],
    "chunked, nothing": _CHUNKED,
    "chunked, half a size": _CHUNKED + b"b",
    "chunked, half a chunk": _CHUNKED + b"b\r\n" + _BODY[:5],
    "chunked, half an object": _CHUNKED + b"5\r\n" + _BODY[:5] + b"\r\n",
    "chunked, no last chunk": _CHUNKED + b"b\r\n" + _BODY + b"\r\n",
    "chunked, half a last chunk": _CHUNKED + b"b\r\n" + _BODY + b"\r\n0\r\n",
}
GARBLED = {
    "no size": _CHUNKED + b"x\r\n" + _BODY + b"\r\n0\r\n\r\n",
    "no size at all": _CHUNKED + _BODY + b"\r\n0\r\n\r\n",
    "a longer chunk than it says": _CHUNKED + b"5\r\n" + _BODY + b"\r\n0\r\n\r\n",
    "no size after a chunk": _CHUNKED + b"b\r\n" + _BODY + b"\r\nx\r\n\r\n",
    "a size below zero": _CHUNKED + b"-1\r\n" + _BODY + b"\r\n0\r\n\r\n",
    "a size beyond all numbers": _CHUNKED + b"ffffffffffffffffff\r\n" + _BODY + b"\r\n0\r\n\r\n",
    "a trailer": _CHUNKED + b"b\r\n" + _BODY + b"\r\n0\r\nX-More: 1\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 11\r\n\r\n" + _BODY,
    "a length that is none": b"Content-Length: 11x\r\n\r\n" + _BODY,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    env = environment(_url(folder), folder)
    with ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as server:
        until(lambda: server.answers("/readyz"), "a node that is ready", 60)
        yield server


@pytest.fixture(scope="module")
def database(server: ServerProcess, folder: Path) -> Iterator[Database]:
    with contextlib.closing(Database(_url(folder))) as database:
        yield database


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.db"


@pytest.fixture
def sold(database: Database) -> Sold:
    return sell(database, {"duration_days": 30}, expires_at=2_000_000_000.0)


def said(server: ServerProcess, path: str, headers: dict[str, str], rest: bytes, then: str = "closed") -> bytes:
    """What is answered to a request after which its sender has `closed`, `reset` or (whole) `kept` the connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head.encode() + rest)
        if then == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        if then == "closed":
            client.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)


def admin() -> dict[str, str]:
    return {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}


def code_of(answer: bytes) -> str:
    """Of a refusal; hyper refuses what is no HTTP without a body."""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), answer
    _, _, body = answer.partition(b"\r\n\r\n")
    return str(json.loads(body)["code"]) if body else "MALFORMED"


@pytest.mark.parametrize("action", ["renew", "reissue"])
@pytest.mark.parametrize("how", [*CUT, *GARBLED])
def test_an_action_whose_body_is_not_whole_is_not_done(
    server: ServerProcess, database: Database, sold: Sold, action: str, how: str
) -> None:
    before = license_row(database, sold)
    path = f"/v1/licenses/{sold.id}/actions/{action}"
    assert code_of(said(server, path, admin(), {**CUT, **GARBLED}[how])) == "MALFORMED"
    said(server, path, admin(), {**CUT, **GARBLED}[how], "reset")
    assert server.answers("/livez")
    assert license_row(database, sold) == before


@pytest.mark.parametrize("how", [*CUT, *GARBLED])
def test_a_clients_call_whose_body_is_not_whole_is_not_done(
    server: ServerProcess, database: Database, sold: Sold, how: str
) -> None:
    body = json.dumps({"key": sold.key, "nonce": "n" * 16, "increment": 3}).encode()
    cut = {**CUT, **GARBLED}[how].replace(_BODY, body).replace(b"b\r\n", b"%x\r\n" % len(body))
    cut = cut.replace(b"Length: 11", b"Length: %d" % len(body))
    headers = signed("POST", "/v1/usage", body)
    assert code_of(said(server, "/v1/usage", headers, cut)) == "MALFORMED"
    assert events_of(database, sold) == []


WHOLE = {
    "length": _LENGTH + _BODY,
    "one chunk": _CHUNKED + b"b\r\n" + _BODY + b"\r\n0\r\n\r\n",
    "chunks": _CHUNKED + b"5\r\n" + _BODY[:5] + b"\r\n6;ext=1\r\n" + _BODY[5:] + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("how", WHOLE)
def test_a_whole_body_is_taken_however_it_is_sent(server: ServerProcess, sold: Sold, how: str) -> None:
    headers = admin() | {"Connection": "close"}
    answer = said(server, f"/v1/licenses/{sold.id}/actions/renew", headers, WHOLE[how], "kept")
    told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert told["expires_at"] == "2033-05-21T03:33:20Z"
