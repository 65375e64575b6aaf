"""What an application is told of a request is what Granian itself tells a WSGI application, however odd the request.
But for header names with an underscore: an application cannot tell them from those with a hyphen."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.processes import ServerProcess, until

_APP = """
import json, os, sys
import api.server

def app(environ, start_response):
    told = {name: value for name, value in environ.items() if isinstance(value, (str, int, tuple))}
    told["body"] = environ["wsgi.input"].read().decode("latin-1")
    known = {"HTTP_", "SERVER_", "REQUEST_", "REMOTE_", "PATH_", "QUERY_", "CONTENT_", "SCRIPT_", "GATEWAY_", "wsgi."}
    body = json.dumps({name: told[name] for name in told if name == "body" or name.startswith(tuple(known))}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
"""
_OURS = """
if __name__ == "__main__":
    options = api.server.ServerOptions(host="127.0.0.1", port=int(os.environ["PORT"]), workers=1)
    sys.exit(api.server.serve(options, lambda: api.server.Application(app)))
"""
_GRANIANS = """
if __name__ == "__main__":
    from granian import Granian
    from granian.constants import Interfaces
    server = Granian("", address="127.0.0.1", port=int(os.environ["PORT"]), interface=Interfaces.WSGI)
    server.serve(target_loader=lambda _: app)
"""

REQUESTS = {
    "plain": b"GET /a HTTP/1.1\r\nHost: h:1\r\n\r\n",
    "escaped path": b"GET /v1%2Fvalid%61te/%20%zz%25 HTTP/1.1\r\nHost: h\r\n\r\n",
    "path that is UTF-8": b"GET /%C3%A9/\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n",
    "doubled slashes and dots": b"GET //a/../b/./ HTTP/1.1\r\nHost: h\r\n\r\n",
    "query": b"GET /a?b=%20+c&d=%ff?e HTTP/1.1\r\nHost: h\r\n\r\n",
    "query that is UTF-8": b"GET /a?\xc3\xa9=1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "empty query": b"GET /a? HTTP/1.1\r\nHost: h\r\n\r\n",
    "whole address": b"GET http://else.example:99/a?b HTTP/1.1\r\nHost: h\r\n\r\n",
    "whole address without a path": b"GET http://else.example HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "an old client": b"GET /a HTTP/1.0\r\n\r\n",
    "an old client that says whom": b"GET http://else.example/a HTTP/1.0\r\n\r\n",
    "another method": b"BREW /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a header twice": b"GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-B: 2\r\nX-A: 3\r\n\r\n",
    "cookies": b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nCookie: b=2, c\r\n\r\n",
    "a header that is no ASCII": b"GET / HTTP/1.1\r\nHost: h\r\nX-A: \xc3\xa9\r\nX-B: b\r\n\r\n",
    "an empty header": b"GET / HTTP/1.1\r\nHost: h\r\nX-A:\r\nX-B:  b  \r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "a body": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Type: a/b; c=d\r\n\r\nhello",
    "two types": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\nx",
    "a type that is no ASCII": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Type: \xff\r\n\r\nx",
    "an empty body": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "a GET with a body": b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
    "a body that is asked for": b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
}


@contextlib.contextmanager
def served(how: str) -> Iterator[int]:
    with ServerProcess.python("-c", _APP + how, env={}) as server:
        until(lambda: asked(server.port, REQUESTS["plain"]), "an answer")
        yield server.port


@pytest.fixture(scope="module")
def ours() -> Iterator[int]:
    with served(_OURS) as port:
        yield port


@pytest.fixture(scope="module")
def granians() -> Iterator[int]:
    with served(_GRANIANS) as port:
        yield port


def asked(port: int, request: bytes) -> bytes:
    """The answer to a request, as it came; empty where there is none."""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request)
        answer = b""
        while not is_whole(answer) and (part := client.recv(65_536)):
            answer = (answer + part).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        return answer
    return b""


def is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def told(port: int, request: bytes) -> tuple[bytes, dict[str, Any]]:
    head, _, body = asked(port, request).partition(b"\r\n\r\n")
    environ = json.loads(body) if body.startswith(b"{") else {}
    assert environ.pop("SERVER_PORT", str(port)) == str(port)
    return head.split(b"\r\n")[0], environ


@pytest.mark.parametrize("name", REQUESTS)
def test_an_application_is_told_what_granian_itself_tells_it(ours: int, granians: int, name: str) -> None:
    mine, theirs = told(ours, REQUESTS[name]), told(granians, REQUESTS[name])
    assert mine == theirs
    assert mine[1] or mine[0].startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "sent", [b"X_A_B: 2\r\nX-A-B: 1\r\n", b"X-A-B: 1\r\nX_A_B: 2\r\nX-A: \xff\r\n", b"X_A_B: 2\r\n"]
)
def test_a_header_is_not_taken_for_one_that_only_a_proxy_may_set(ours: int, sent: bytes) -> None:
    _, environ = told(ours, b"GET / HTTP/1.1\r\nHost: h\r\nContent_Length: 9\r\n%b\r\n" % sent)
    assert environ.get("HTTP_X_A_B") == ("1" if b"-" in sent else None)
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_a_head_is_answered_without_a_body_and_the_connection_goes_on(ours: int) -> None:
    with socket.create_connection(("127.0.0.1", ours), timeout=30) as client:
        client.sendall(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n" + REQUESTS["plain"])
        answers = b""
        while b'"/a"' not in answers:
            answers += client.recv(65_536)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b'"PATH_INFO"') == 1


def test_a_body_in_parts_has_a_length_when_it_is_here(ours: int) -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    _, environ = told(ours, request)
    assert (environ["body"], environ["CONTENT_LENGTH"]) == ("abcde", "5")
    assert "HTTP_TRANSFER_ENCODING" not in environ


def test_nothing_of_the_process_is_told(ours: int) -> None:
    assert "PORT" not in told(ours, REQUESTS["plain"])[1]
