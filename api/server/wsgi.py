"""Between Granian's requests and a WSGI application: the environ as Granian itself would make it, and the answer."""

import functools
import io
import math
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from .application import Reply
from .exchange import Exchange

_WHOLE_UP_TO = 1024 * 1024
#: Headers that the environ has under names of their own, and once whatever was sent.
_ONCE = ("content-type", "content-length")
#: How many names `environ_of` sets besides these and the headers.
_OWN = 8
_ALWAYS = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "Granian",
    "wsgi.errors": sys.stderr,
    # Not in PEP 3333, but Werkzeug asks for it: the input ends where the body does.
    "wsgi.input_terminated": True,
    "wsgi.multiprocess": False,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}


def environ_of(scope: Any) -> WSGIEnvironment:
    """All of the request but its body. Of headers with values that are not ASCII only the others count.

    Those with an underscore in their name are left out: here they have the names of those with a hyphen, which a proxy
    may have set (`X-Forwarded-For`) and passes on beside what its client sent.
    """
    server, _, port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        **_ALWAYS,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "SERVER_NAME": _bare(server),
        "SERVER_PORT": port,
        "REMOTE_ADDR": _bare(scope.client.rpartition(":")[0]),
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": _latin(scope.path),
        "QUERY_STRING": _latin(scope.query_string),
        "wsgi.url_scheme": scope.scheme,
    }
    headers = scope.headers
    before = ""
    for header, value in headers.items():
        if "_" in header:
            continue
        if header != before:
            environ[_name(header)] = value
        elif header not in _ONCE:
            environ[_name(header)] += (";" if header == "cookie" else ",") + value
        before = header
    if len(environ) < len(_ALWAYS) + _OWN + len(headers):
        for header in headers:
            if "_" not in header:
                environ.setdefault(_name(header), "")
    if "HTTP_HOST" not in environ:
        environ["HTTP_HOST"] = scope.authority or ""
    return environ


def with_body(environ: WSGIEnvironment, raw: bytes) -> None:
    """Puts the body, which is all here, where an application looks for it."""
    environ["wsgi.input"] = io.BytesIO(raw)
    if "HTTP_TRANSFER_ENCODING" in environ:
        # It has a length now: Werkzeug would otherwise cut it at its limit without a word.
        del environ["HTTP_TRANSFER_ENCODING"]
        environ["CONTENT_LENGTH"] = str(len(raw))


def respond(app: WSGIApplication, exchange: Exchange) -> None:
    """Has `app` answer. Raises what it raises."""
    head = _Head()
    answer = app(exchange.environ, head)
    try:
        parts = iter(answer)
        # An application may say its head as late as with its first part.
        first = next(filter(None, parts), b"")
        if first and head.length > _WHOLE_UP_TO:
            exchange.stream(head.status, head.headers, first, parts)
        else:
            exchange.answer(Reply(head.status, head.headers, b"".join(chain([first], parts))))
    finally:
        _close(answer)


class _Head:
    """A start_response that keeps its arguments. `length`: the Content-Length, infinite where there is none."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[str, str]] = []
        self.length = math.inf

    def __call__(self, status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
        self.status = int(status.split(" ", 1)[0])
        self.headers = headers
        for name, value in headers:
            if name.lower() == "content-length":
                self.length = int(value)
        return _no_write


def _no_write(_part: bytes) -> object:
    raise NotImplementedError("an application's answer is what it gives back")


@functools.lru_cache(1024)
def _name(header: str) -> str:
    name = header.replace("-", "_").upper()
    return name if header in _ONCE else f"HTTP_{name}"


def _bare(address: str) -> str:
    """An IP address without the brackets and the zone of one of version 6."""
    return address.strip("[]").partition("%")[0]


def _latin(text: str) -> str:
    """As PEP 3333 has bytes in a string."""
    return text if text.isascii() else text.encode().decode("latin-1")


def _close(answer: Iterable[bytes]) -> None:
    if (close := getattr(answer, "close", None)) is not None:
        close()
