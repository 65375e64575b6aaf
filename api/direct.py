"""The short way in: client calls in their usual form are answered without Flask, which costs more than a verdict does.

It knows no rules of its own. What is unusual in any way goes to Flask, and every error is rendered there.
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask

from api.blueprints.client import PATHS, ClientCalls
from api.intake import BODY_LIMIT
from api.sent import sent_by


class DirectCalls:
    """WSGI middleware between a server and `app`'s own way in."""

    def __init__(self, app: Flask, calls: ClientCalls) -> None:
        self._app = app
        self._flask = app.wsgi_app
        self._calls = calls

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or go on."""
        path = environ.get("PATH_INFO", "")
        act, length = PATHS.get(path), _plain_length(environ)
        if act is None or length is None:
            return self._flask(environ, start_response)
        raw = environ["wsgi.input"].read(length)
        try:
            body = self._calls.answer(act, sent_by(environ, path, raw))
        except Exception as error:
            return self._refuse(error, environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _refuse(self, error: Exception, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """As Flask does it with what a view raises."""
        with self._app.request_context(environ):
            response = self._app.finalize_request(self._app.handle_user_exception(error))
            return response(environ, start_response)


def _plain_length(environ: WSGIEnvironment) -> int | None:
    """How long the body is that comes as every client of ours sends it; None for any other request."""
    length = environ.get("CONTENT_LENGTH", "")
    if (
        environ["REQUEST_METHOD"] != "POST"
        or environ.get("CONTENT_TYPE") != "application/json"
        or "HTTP_TRANSFER_ENCODING" in environ
        or "HTTP_ORIGIN" in environ  # a browser's: CORS is Flask's business
        or "HTTP_UPGRADE" in environ
        or not (length.isascii() and length.isdigit() and len(length) <= len(str(BODY_LIMIT)))
    ):
        return None
    return int(length) if int(length) <= BODY_LIMIT else None
