"""One server asked once: signed, sent, and its answer verified; signed again once where only the clock is wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from license_client.calls import Call, Credentials, new_nonce
from license_client.causes import Failure
from license_client.errors import TokenInvalid
from license_client.transport import Reply, Transport, TransportFailed
from license_client.verify import Verifier, is_token_of
from license_client.walk import Answer, AttemptFailed

_CODE = re.compile(r"[A-Z_]{1,40}", re.ASCII)
_MAX_TIME = 2**40
_WEEK_S = 604_800


@dataclass(frozen=True, slots=True)
class Bound:
    """What verdicts are verified with besides the call itself."""

    verifier: Verifier
    credentials: Credentials
    product: str


class Asker:
    """Asks servers over a transport. Keeps by how much this machine's clock is off, once a verdict has come of it."""

    def __init__(self, transport: Transport, bound: Bound, now: Callable[[], float]) -> None:
        self._transport = transport
        self._bound = bound
        self._now = now
        self._offset = 0.0

    def ask(self, call: Call, server: str, budget: float) -> Answer:
        """One server's verified answer within `budget` seconds in all. Raises `AttemptFailed`."""
        end, offset = time.monotonic() + budget, self._offset
        nonce, reply = self._sent(call, server, end, offset)
        ts = _skewed_at(reply)
        if ts is not None:
            offset = ts - self._now()
            nonce, reply = self._sent(call, server, end, offset)
        answer = self._read(call, server, nonce, reply)
        # Anybody may name a time: only one that came with a verdict is kept, or it would spoil the calls to the others.
        self._offset = offset
        return answer

    def _sent(self, call: Call, server: str, end: float, offset: float) -> tuple[str, Reply]:
        nonce = new_nonce()
        body = call.body(nonce)
        headers = self._bound.credentials.headers(call, body, int(self._now() + offset))
        remaining = end - time.monotonic()
        if remaining <= 0:
            raise AttemptFailed(Failure("timeout"))
        try:
            return nonce, self._transport.post(server + call.path, body, headers, remaining)
        except TransportFailed as failure:
            raise AttemptFailed(Failure(failure.reason, server_time=failure.not_before)) from failure

    def _read(self, call: Call, server: str, nonce: str, reply: Reply) -> Answer:
        if reply.status != 200:
            raise AttemptFailed(_failure_of(reply, self._now()))
        answer = _members(reply)
        verdict, token = answer.get("verdict"), answer.get("token")
        if not isinstance(verdict, str):
            raise AttemptFailed(Failure("no verdict"))
        try:
            claims = self._bound.verifier.verify_verdict(
                verdict,
                act=call.act,
                nonce=nonce,
                request_id=call.request_id,
                body=call.body(nonce),
                key=call.key,
                fingerprint=call.fingerprint,
                product=self._bound.product,
            )
        except TokenInvalid as refused:
            raise AttemptFailed(Failure(f"verdict refused: {refused.reason}")) from refused
        return Answer(server, claims, token if isinstance(token, str) and is_token_of(claims, token) else None)


def _failure_of(reply: Reply, now: float) -> Failure:
    """What an answer that is no verdict says: its status and code, when to try again, and what time it is."""
    code = _members(reply).get("code")
    named = f" {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""
    skewed_at, dated = _skewed_at(reply), _http_date(reply.headers.get("date", ""))
    return Failure(
        f"status {reply.status}{named}",
        retry_after=_retry_after(reply.headers.get("retry-after", ""), now if dated is None else dated),
        server_time=dated if skewed_at is None else skewed_at,
    )


def _retry_after(text: str, now: float) -> int | None:
    """The seconds in a `Retry-After`, which may also be a date; None for what is none or beyond a week."""
    if re.fullmatch("[0-9]{1,6}", text.strip(), re.ASCII):
        seconds: int | None = int(text)
    else:
        until = _http_date(text)
        seconds = None if until is None else max(0, until - int(now))
    return seconds if seconds is not None and seconds <= _WEEK_S else None


def _http_date(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _members(reply: Reply) -> dict[str, Any]:
    """The JSON object of an answer; nothing where it is none. None of it is signed."""
    try:
        value = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _skewed_at(reply: Reply) -> int | None:
    """The server's time, where it says that only the time of the call was wrong."""
    if reply.status != 401:
        return None
    problem = _members(reply)
    ts = problem.get("ts")
    if problem.get("code") == "TIMESTAMP_SKEWED" and type(ts) is int and 0 <= ts < _MAX_TIME:
        return ts
    return None
