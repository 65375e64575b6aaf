"""The admin's calls over an ordered list of servers: the first that answers decides, and a retry has no second effect.

A server that refuses the connection, is silent, answers 5xx or 429, or answers what no node answers (a host's own page)
has not answered, and the next one is asked. A `POST` carries one `Idempotency-Key` to all of them.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from license_admin.errors import AdminError, Misused, NoServer, NotAllowed, Refused
from license_admin.files import Spool
from license_admin.transport import MAX_ANSWER, AdminTransport
from license_client.result import Attempt
from license_client.servers import Servers
from license_client.transport import Reply, TransportFailed

#: Seconds for a server's whole answer, in the first, second and third pass: the last is for hosts that wake from sleep.
BUDGETS = (4.0, 15.0, 60.0)
_PAGE = 100
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
_CODE = re.compile(r"[A-Z_]{1,40}", re.ASCII)

Json = dict[str, Any]


class _Unanswered(Exception):
    """A server has not answered. `reason` is for people and never holds a secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Call:
    """One call, the same on whichever server it is tried."""

    method: str
    path: str
    query: Mapping[str, Any]
    body: bytes | None
    headers: Mapping[str, str]

    @property
    def target(self) -> str:
        given = {name: value for name, value in self.query.items() if value is not None}
        return self.path + (f"?{urlencode(given)}" if given else "")


class AdminApi:
    """Makes calls with one token. Every method raises `Refused`, `NotAllowed` and `NoServer`."""

    def __init__(
        self, servers: Servers, token: str, transport: AdminTransport, budgets: Sequence[float] = BUDGETS
    ) -> None:
        self._servers = servers
        self._token = token
        self._transport = transport
        self._budgets = budgets
        #: Who did not answer, of all calls so far.
        self.attempts: list[Attempt] = []

    def get(self, path: str, **query: Any) -> Json:
        return self._walk(self._call("GET", path, query))

    def post(self, path: str, body: Mapping[str, Any] | None = None, request_id: str | None = None) -> Json:
        """`request_id`: of a call that is repeated; a new one where there is none."""
        key = checked_request_id(request_id)
        return self._walk(self._call("POST", path, {}, body or {}, {"Idempotency-Key": key}), repeat=key)

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        return self._walk(self._call("PATCH", path, {}, body))

    def delete(self, path: str) -> None:
        """Where a server that was asked before may have done it, that it is gone is as good as done."""
        before = len(self.attempts)
        try:
            self._walk(self._call("DELETE", path, {}))
        except Refused as refused:
            if refused.code != "RESOURCE_NOT_FOUND" or len(self.attempts) == before:
                raise

    def every(self, path: str, limit: int | None = None, **query: Any) -> Iterator[Json]:
        """All items of a list that match, page by page, or the first `limit` of them."""
        left, cursor = limit, None
        while left is None or left > 0:
            page = self.get(path, limit=_PAGE if left is None else min(left, _PAGE), cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    def download(self, path: str, accept: str, spool: Spool, **query: Any) -> None:
        """Fills `spool` with a long answer, from its beginning with each server that is asked."""

        def asked(call: Call, server: str, budget: float) -> Json:
            spool.restart()
            url = server + call.target
            reply = self._reply(partial(self._transport.download, url, call.headers, budget, spool.write))
            if reply.status != 200:
                return _answer(reply)
            if spool.is_broken_off:
                raise _Unanswered("it broke off")
            return {}

        self._walk(self._call("GET", path, query, accept=accept), asked)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
        more: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> Call:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept, **(more or {})}
        if body is None:
            return Call(method, path, query, None, headers)
        return Call(method, path, query, encoded(body), {**headers, "Content-Type": "application/json"})

    def _walk(
        self,
        call: Call,
        ask: Callable[[Call, str, float], Json] | None = None,
        repeat: str | None = None,
    ) -> Json:
        attempts: list[Attempt] = []
        try:
            for budget in self._budgets:
                for server in self._servers.order():
                    try:
                        answer = (ask or self._ask)(call, server, budget)
                    except _Unanswered as unanswered:
                        self._servers.failed(server)
                        attempts.append(Attempt(server, unanswered.reason))
                        continue
                    except AdminError:
                        self._servers.answered(server)
                        raise
                    self._servers.answered(server)
                    return answer
        finally:
            self.attempts += attempts
        raise NoServer(attempts, repeat)

    def _ask(self, call: Call, server: str, budget: float) -> Json:
        url = server + call.target
        send = partial(self._transport.request, call.method, url, call.body, call.headers, budget, MAX_ANSWER)
        return _answer(self._reply(send))

    def _reply(self, send: Callable[[], Reply]) -> Reply:
        try:
            return send()
        except TransportFailed as failure:
            raise _Unanswered(failure.reason) from failure


def part(text: str) -> str:
    """`text` as one part of a path."""
    return quote(text, safe="")


def encoded(body: Mapping[str, Any]) -> bytes:
    """The JSON that is sent."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def checked_request_id(given: str | None) -> str:
    """The caller's, or a new one. Raises `Misused`."""
    if given is None:
        return secrets.token_hex(16)
    if _REQUEST_ID.fullmatch(given) is None:
        raise Misused("--request-id: must be 8 to 64 of A-Z a-z 0-9 _ -")
    return given


def _answer(reply: Reply) -> Json:
    """The object that a node answers. Raises `Refused`, and `_Unanswered` for what is no node's answer."""
    if reply.status == 204:
        return {}
    members = _object(reply.body)
    if reply.status in (200, 201) and members is not None:
        return members
    code = None if members is None else members.get("code")
    is_nodes = isinstance(code, str) and _CODE.fullmatch(code) is not None
    named = f"status {reply.status}" + (f" {code}" if is_nodes else ", which is no node's answer")
    # A node of an older release has not the route, and the next one may.
    if not is_nodes or members is None or reply.status >= 500 or reply.status == 429 or code == "ROUTE_NOT_FOUND":
        raise _Unanswered(named)
    raise (NotAllowed if reply.status in (401, 403) else Refused)(members)


def _object(body: bytes) -> Json | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
