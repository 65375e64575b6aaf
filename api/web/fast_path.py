"""The fast path: client calls in their usual form are answered without Flask, which costs more than a verdict does.

It knows no rules of its own. What is unusual in any way goes to Flask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from api.checks.request import client_request_from
from api.problems import body_of
from api.server.application import PRIVATE, Reply
from api.web.client_routes import PATHS, ClientCalls
from api.web.intake import BODY_LIMIT, check_whole
from api.web.problem_responses import headers_of, problem_of, request_id_of

#: Made once, as a refusal's are (`headers_of`). Not to be changed in place.
_VERDICT_HEADERS = [("Content-Type", "application/json"), *PRIVATE]


class FastPath:
    """WSGI middleware between a server and `app`'s own way in, and for a server that can: `NonBlockingHandler`."""

    def __init__(self, app: Flask, calls: ClientCalls, trusted_proxies: int) -> None:
        self._flask = app.wsgi_app
        self._calls = calls
        self._address = ProxyFix(_nothing, x_for=trusted_proxies) if trusted_proxies else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or go on. Whatever trusted proxies say has been read."""
        path = environ.get("PATH_INFO", "")
        act, length = PATHS.get(path), _plain_length(environ)
        if act is None or length is None:
            return self._flask(environ, start_response)
        raw = environ["wsgi.input"].read(length)
        try:
            check_whole(raw, length)
            reply = _verdict(self._calls.answer(act, client_request_from(environ, path, raw)))
        except Exception as error:
            reply = _refusal(error, environ)
        phrase = HTTPStatus(reply.status).phrase
        start_response(f"{reply.status} {phrase}", [*reply.headers, ("Content-Length", str(len(reply.body)))])
        return [reply.body]

    def begin(self, environ: WSGIEnvironment, raw: bytes, answer: Callable[[Reply], None]) -> bool:
        """`NonBlockingHandler.begin`."""
        path = environ["PATH_INFO"]
        act = PATHS.get(path)
        if act is None or _plain_length(environ) is None:
            return False
        if self._address is not None:
            environ = dict(environ)
            self._address(environ, _nothing)

        def done(outcome: bytes | BaseException) -> None:
            answer(_refusal(outcome, environ) if isinstance(outcome, BaseException) else _verdict(outcome))

        try:
            return self._calls.begin(act, client_request_from(environ, path, raw), done)
        except Exception:
            return False  # Flask finds the same problem again, and answers with it

    def longest(self, now: float) -> float:
        """`NonBlockingHandler.longest`."""
        return self._calls.longest(now)


def _verdict(body: bytes) -> Reply:
    return Reply(200, _VERDICT_HEADERS, body)


def _refusal(error: BaseException, environ: WSGIEnvironment) -> Reply:
    """As Flask answers with what a view raises."""
    problem = problem_of(error, environ["PATH_INFO"])
    body = body_of(problem, request_id_of(environ.get("HTTP_X_REQUEST_ID")))
    return Reply(problem.status, headers_of(problem), body)


def _nothing(*_: object) -> Any:
    """For a layer of which only what it does to the environ is wanted."""
    return ()


def _plain_length(environ: WSGIEnvironment) -> int | None:
    """How long the body is that comes as every client of ours sends it; None for any other request."""
    length = environ.get("CONTENT_LENGTH", "")
    if (
        environ["REQUEST_METHOD"] != "POST"
        or environ.get("CONTENT_TYPE") != "application/json"
        or "HTTP_TRANSFER_ENCODING" in environ
        or "HTTP_CONTENT_ENCODING" in environ
        or "HTTP_ORIGIN" in environ  # a browser's: CORS is Flask's business
        or "HTTP_UPGRADE" in environ
        or not (length.isascii() and length.isdigit() and len(length) <= len(str(BODY_LIMIT)))
    ):
        return None
    return int(length) if int(length) <= BODY_LIMIT else None
