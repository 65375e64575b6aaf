"""Exceptions as problem answers: the one place that knows which error of which layer is which problem."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from api import logs
from api.checks.batcher import BacklogFull, FlushTimeout
from api.checks.schemas import is_request_id
from api.checks.unit_of_work import RequestIdReused
from api.ids import new_id
from api.ledger.errors import LedgerBusy, LedgerContradicts, LedgerError, QueueIsFull
from api.problems import PROBLEMS, Problem, body_of
from api.server.application import PRIVATE

_log = logs.get("problems")

_HTTP_CODES = {404: "ROUTE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE"}
#: RFC 9110, section 15.5.2: a 401 names the scheme that it asks for. Those of clients have names of our own.
_SIGNATURE = ("WWW-Authenticate", 'Signature headers="X-Request-Id X-Timestamp X-Signature"')
_OF_CODE = {
    "API_KEY_INVALID": [("WWW-Authenticate", 'ApiKey header="X-API-Key"')],
    "TIMESTAMP_SKEWED": [_SIGNATURE],
    "SIGNATURE_INVALID": [_SIGNATURE],
    "TOKEN_INVALID": [("WWW-Authenticate", "Bearer")],
    # RFC 9110, section 15.5.16: what would have been taken.
    "UNSUPPORTED_MEDIA_TYPE": [("Accept", "application/json"), ("Accept-Encoding", "identity")],
}
#: Made once: a refusal costs no more than a verdict.
_HEADERS = {
    code: [("Content-Type", "application/problem+json"), *PRIVATE, *_OF_CODE.get(code, ())] for code in PROBLEMS
}


def register(app: Flask) -> None:
    """Makes `app` answer every exception as a problem."""
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, lambda error: render(problem_of(error, _route())))


def _route() -> str:
    """The route of the request, as it is written down: a path may have a license key in it, a log may not."""
    return "" if request.url_rule is None else request.url_rule.rule


def problem_of(error: BaseException, path: str) -> Problem:
    """What to say where a call of the route `path` ended with `error`. An unexpected error is logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, LedgerError):
        return _from_ledger(error)
    if isinstance(error, RequestIdReused):
        return Problem("REQUEST_ID_REUSED")
    if isinstance(error, BacklogFull):
        return Problem("OVERLOADED")
    if isinstance(error, FlushTimeout):
        return Problem("LEDGER_UNAVAILABLE", "no answer in time")
    _log.error("unexpected error", exc_info=error, extra={"path": path})
    return Problem("INTERNAL")


def headers_of(problem: Problem) -> list[tuple[str, str]]:
    """What the answer's head says besides the body's length. Not to be changed in place."""
    headers = _HEADERS[problem.code]
    if problem.status in (429, 503):
        return [*headers, ("Retry-After", str(max(1, round(problem.retry_after))))]
    return headers


def render(problem: Problem) -> Response:
    """The problem as Flask's answer to the request that it has before it."""
    request_id = request_id_of(request.headers.get("X-Request-Id"))
    return Response(body_of(problem, request_id), problem.status, headers_of(problem))


def request_id_of(sent: str | None) -> str:
    """The caller's `X-Request-Id` where it is well formed, else a new one."""
    return sent if sent is not None and is_request_id(sent) else new_id()


def _from_ledger(error: LedgerError) -> Problem:
    if isinstance(error, LedgerBusy):
        return Problem("OVERLOADED", "others hold what this needs")
    if isinstance(error, LedgerContradicts):
        return Problem("LEDGER_CONTRADICTS", str(error))
    if isinstance(error, QueueIsFull):
        return Problem("QUEUE_FULL", str(error))
    return Problem("LEDGER_UNAVAILABLE")


def _from_http(error: HTTPException) -> Response:
    code = _HTTP_CODES.get(error.code or 500)
    if code is None:
        return render(Problem("MALFORMED", error.description or ""))
    response = render(Problem(code))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response
