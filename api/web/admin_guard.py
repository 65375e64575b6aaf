"""The way in for admins' calls: size, type, token, scope, query and body, refused in the contract's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from flask import Blueprint, Response, request

from api.admin.idempotency import EVERY_TIME, Effect, Once
from api.admin.schemas import Body, parse
from api.admin.token_store import Scope
from api.checks.schemas import is_request_id, shown_name
from api.problems import Malformed, Problem
from api.runtime import Runtime
from api.web.admin_auth import AdminAuth, Authorized
from api.web.intake import read_json_body
from api.web.json_response import json_response

_DEFAULT_LIMIT = 50
_CSV_LIMIT = 1_000_000
#: What a token with `licenses:write` alone is shown of what it writes.
_UNREAD = ("id", "key")

B = TypeVar("B", bound=Body)


class Written(msgspec.Struct, Generic[B], frozen=True):
    """A call that changes something. `shown`: its token may also read what it changes."""

    body: B
    effect: Effect
    scopes: frozenset[str]
    shown: bool

    def answer(self, write: Callable[[], dict[str, Any]], made_in: str | None = None) -> Response:
        """The resource that `write` gives, or the license that it conflicts with, as far as the caller may see it.

        `made_in`: the path of the collection to which `write` adds, for a 201 with the new resource's own path.
        """
        try:
            written = self._visible(write())
            if made_in is None:
                return json_response(written)
            place = made_in if "items" in written else f"{made_in}/{written['id']}"
            return json_response(written, 201, {"Location": place})
        except Problem as problem:
            if "license" in problem.members:
                problem.members["license"] = self._visible(problem.members["license"])
            raise

    def _visible(self, resource: dict[str, Any]) -> dict[str, Any]:
        """All of it; for a token that may not read, its id and, of a license that was given one, the key."""
        if self.shown:
            return resource
        if "items" in resource:
            return resource | {"items": [self._visible(item) for item in resource["items"]]}
        return {name: resource[name] for name in _UNREAD if name in resource}


class AdminGuard:
    """Lets a call in, refusing in the contract's order: size, type, token, scope, query."""

    def __init__(self, runtime: Runtime, auth: AdminAuth) -> None:
        self._runtime = runtime
        self._auth = auth

    def read(self, scope: Scope = Scope.LICENSES_READ, *, lists: bool = False) -> dict[str, str]:
        """The query's parameters, of which only `lists` have any."""
        self._auth.require(request, scope)
        return query_of(lists)

    def changer(self, scope: Scope) -> frozenset[str]:
        """The scopes of who calls without a body and without a query. Raises `STARTING`."""
        _, caller = self.take(scope, bodiless=True)
        self.started()
        return caller.scopes

    def exporter(self, scope: Scope = Scope.LICENSES_READ) -> tuple[dict[str, str], frozenset[str]]:
        """The query's parameters, and the scopes of who asks."""
        caller = self._auth.require(request, scope)
        return query_of(allowed=True), caller.scopes

    def write(
        self,
        type: type[B],
        scope: Scope = Scope.LICENSES_WRITE,
        *,
        bodiless: bool = False,
        bound: Callable[[B], B] = lambda body: body,
    ) -> Written[B]:
        """A call that changes something, well formed; a `bodiless` one may come without a body. Raises `STARTING`.

        `bound`: the body to which an `Idempotency-Key` is bound, where that is not the one that was sent.
        """
        raw, caller = self.take(scope, bodiless=bodiless)
        key = _idempotency_key()
        body = parse(type, raw)
        self.started()
        shown = scope is not Scope.LICENSES_WRITE or Scope.LICENSES_READ in caller.scopes
        return Written(body, self._effect(key, caller, bound(body)), caller.scopes, shown)

    def take(self, scope: Scope = Scope.LICENSES_WRITE, *, bodiless: bool = False) -> tuple[bytes, Authorized]:
        """The raw body, `{}` where a `bodiless` call has none, and who sent it."""
        has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        raw = read_json_body(request) if has_body or not bodiless else b"{}"
        caller = self._auth.require(request, scope)
        query_of(allowed=False)
        return raw, caller

    def started(self) -> None:
        """To be called once the call itself is found to be well formed. Raises `STARTING`."""
        self._runtime.require_started()

    def _effect(self, key: str | None, caller: Authorized, body: Body) -> Effect:
        if key is None:
            return EVERY_TIME
        held, current = self._runtime.settings.signing_keys, self._runtime.signer.kid
        return Once(key, caller.token_hash, request.path, body, held, current)


def require_scope(held: frozenset[str], scope: str) -> None:
    """Raises `SCOPE_MISSING`."""
    if scope not in held:
        raise Problem("SCOPE_MISSING", f"needs the scope {scope}", scope=scope)


def add_route(admin: Blueprint, rule: str, method: str, name: str, view: Callable[..., Response]) -> None:
    admin.add_url_rule(rule, name, view, methods=[method])


def _idempotency_key() -> str | None:
    """The request's `Idempotency-Key`; None where a call may be repeated anyway, or has none. Raises `Malformed`."""
    sent = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    if sent is not None and not is_request_id(sent):
        raise Malformed("Idempotency-Key", "must be 8 to 64 of A-Z a-z 0-9 _ -, and not of a license key's form")
    return sent


def page_of(query: dict[str, str]) -> tuple[int, str | None]:
    """Takes `limit` and `cursor` out of `query`. Raises `Malformed`."""
    limit = query.pop("limit", str(_DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4):
        raise Malformed("limit", "must be a whole number")
    return int(limit), query.pop("cursor", None)


def rows_of(query: dict[str, str]) -> int | None:
    """Takes CSV's `limit` out of `query`: so many rows, None for all. Raises `Malformed`, also for a `cursor`."""
    if "cursor" in query:
        raise Malformed("cursor", "is for pages of JSON: CSV comes in one piece, of at most `limit` rows")
    limit = query.pop("limit", None)
    if limit is None:
        return None
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 7 and 1 <= int(limit) <= _CSV_LIMIT):
        raise Malformed("limit", f"must be a whole number from 1 to {_CSV_LIMIT}")
    return int(limit)


def query_of(allowed: bool) -> dict[str, str]:
    """The query's parameters. Raises `Malformed` for one that is repeated, and for any where none is allowed."""
    for name, values in request.args.lists():
        if not allowed:
            raise Malformed(shown_name(name), "is not known: this call takes no query string")
        if len(values) > 1:
            raise Malformed(shown_name(name), "stands there more than once")
    return request.args.to_dict()
