"""Reads each request's body before the request may take a place at work, and ends connections that drip theirs.
Granian hands over the body as a stream whose `read` blocks its thread, without any time limit of its own."""

import contextlib
import io
import time
from collections.abc import Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from .connections import Unanswered
from .gate import problem

SLOW_S = 1.0
_SLACK_S = 0.3


class Bodies:
    """WSGI middleware: `wsgi.input` is in memory, at most one byte longer than the limit. A body that declares more
    is not read at all (what to say is the application's business); one that is shorter than declared is not passed on.
    """

    def __init__(self, app: WSGIApplication, limit: int, timeout: float, spare: int, connections: Unanswered) -> None:
        """`limit` in bytes, `timeout` in seconds; `spare`: how many slow bodies may be awaited at a time."""
        self._app = app
        self._limit = limit
        self._timeout = timeout
        self._spare = spare
        self._connections = connections
        self._reading: dict[object, float] = {}  # no lock: each use is one step for the interpreter

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Read, then go on."""
        declared = _declared(environ)
        if declared is None or declared > self._limit:
            return self._app(environ, start_response)
        body = self._read(environ, declared if declared >= 0 else self._limit + 1)
        if len(body) < declared:
            detail = "the body ends before its declared length"
            end = ("Connection", "close")
            return problem(environ, start_response, HTTPStatus.BAD_REQUEST, "MALFORMED", detail, end)
        environ["wsgi.input"] = io.BytesIO(body)
        # A chunked body has a length now: Werkzeug would otherwise cut it at its limit without a word.
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return self._app(environ, start_response)

    def busy(self) -> int:
        """How many bodies are being read."""
        return len(self._reading)

    def end_slow(self, at_work: float, now: float) -> None:
        """End the connections whose body is past the time limit, and the oldest slow ones beyond `spare`.

        Which connection a body belongs to is not known, but one that has waited longer than the oldest request at
        work (`at_work` seconds) is still sending its own. To be called some times a second.
        """
        ages = [now - since for since in list(self._reading.values())]
        if max(ages, default=0.0) < SLOW_S / 2:
            self._connections.forget()
            return
        self._connections.look(now)
        late = sum(age > self._timeout for age in ages)
        surplus = sum(age > SLOW_S for age in ages) - self._spare
        if (count := max(late, surplus)) > 0:
            patience = SLOW_S if surplus > 0 else self._timeout - SLOW_S
            self._connections.end(count, max(patience, at_work + _SLACK_S), now)

    def _read(self, environ: WSGIEnvironment, size: int) -> bytes:
        ticket = object()
        self._reading[ticket] = time.monotonic()
        try:
            return bytes(environ["wsgi.input"].read(size))
        finally:
            del self._reading[ticket]


def _declared(environ: WSGIEnvironment) -> int | None:
    """The body's length: None when there is none, -1 when it is not known before its end."""
    with contextlib.suppress(ValueError):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > 0:
            return length
    return -1 if "HTTP_TRANSFER_ENCODING" in environ else None
