"""The way in for client calls: size, type, limits, credentials and shape, refused in the contract's order."""

from __future__ import annotations

from flask import Request

from api.admin.token_store import secret_hash
from api.checks.request import AdmittedCall, ClientRequest
from api.checks.schemas import ClientBody, FieldError, parse_call
from api.licensing import Act
from api.node.clock import Clock
from api.problems import Malformed, Problem
from api.web.client_auth import ClientAuth, Skewed
from api.web.rate_limit import FailureLimiter

BODY_LIMIT = 64 * 1024
_COUNTED = frozenset({"API_KEY_INVALID", "SIGNATURE_INVALID"})


class Intake:
    """Lets a call in or raises the `Problem` that comes first."""

    def __init__(self, auth: ClientAuth, limiter: FailureLimiter, clock: Clock) -> None:
        self._auth = auth
        self._limiter = limiter
        self._clock = clock

    def take(self, act: Act, sent: ClientRequest) -> AdmittedCall:
        """Raises a `Problem`: of the credentials first, then of the shape."""
        try:
            return self.looked_at(act, sent)
        except Problem as problem:
            self._refuse(problem, sent)
            raise

    def looked_at(self, act: Act, sent: ClientRequest) -> AdmittedCall:
        """The same without counting failures, which others may hold up; so a refused call has to `take` it."""
        self._auth.check(sent, self._clock.now())
        if sent.query:
            raise Malformed("query", "these calls take no query string")
        return AdmittedCall(sent, _parsed(act, sent.raw))

    def unknown_key(self, taken: AdmittedCall) -> None:
        """Counts an unknown license key; where too many were tried from there, raises `RATE_LIMITED`."""
        self.refuse_limited(taken)
        self._limiter.failed(taken.sent.address, secret_hash(taken.body.key))

    def refuse_limited(self, taken: AdmittedCall) -> None:
        """Raises `RATE_LIMITED` where the address, the API key or the license key has used up its failures."""
        for candidate in (_presented(taken.sent), secret_hash(taken.body.key)):
            retry_after = self._limiter.retry_after(taken.sent.address, candidate)
            if retry_after is not None:
                raise rate_limited(retry_after)

    def _refuse(self, problem: Problem, sent: ClientRequest) -> None:
        """Counts a failure; where its address or API key has used up its failures, raises `RATE_LIMITED` instead."""
        address, presented = sent.address, _presented(sent)
        retry_after = self._limiter.retry_after(address, presented)
        # Customers share addresses: a wrong clock gets the right time even where others used up the failures.
        if retry_after is not None and not (isinstance(problem, Skewed) and problem.genuine):
            raise rate_limited(retry_after) from problem
        if problem.code in _COUNTED:
            # The right API key is everybody's: what fails under it must not limit them all.
            self._limiter.failed(address, presented if problem.code == "API_KEY_INVALID" else None)


def rate_limited(retry_after: float) -> Problem:
    return Problem("RATE_LIMITED", retry_after=retry_after)


def read_json_body(request: Request) -> bytes:
    """The raw body, whole. Raises `BODY_TOO_LARGE` (64 KiB), `Malformed` and `UNSUPPORTED_MEDIA_TYPE`."""
    declared = request.content_length or 0
    if declared > BODY_LIMIT:
        raise Problem("BODY_TOO_LARGE")
    raw = request.get_data(cache=False)
    if len(raw) > BODY_LIMIT:
        raise Problem("BODY_TOO_LARGE")
    check_whole(raw, declared)
    # No coding is undone here: 64 KiB of gzip can be 64 MiB of JSON.
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if request.mimetype != "application/json" or coding not in ("", "identity"):
        raise Problem("UNSUPPORTED_MEDIA_TYPE")
    return raw


def check_whole(raw: bytes, declared: int) -> None:
    """Raises `Malformed` where less has come than was declared: some servers pass on what a client cut short."""
    if len(raw) < declared:
        raise Malformed("$", "the body ends before its declared length")


def _parsed(act: Act, raw: bytes) -> ClientBody:
    try:
        return parse_call(act, raw)
    except FieldError as error:
        raise Malformed(error.field, error.detail) from error


def _presented(sent: ClientRequest) -> str | None:
    return None if sent.api_key is None else secret_hash(sent.api_key)
