"""The calls of admins: resources, license actions, the log, nodes. Bearer tokens only, and never across origins."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import msgspec
from flask import Blueprint, Response, request

from api.admin import event_log
from api.admin.actions import ACTIONS
from api.admin.csv_text import marked_if_broken, to_csv
from api.admin.idempotency import EVERY_TIME, Effect, Once
from api.admin.kinds import Kind
from api.admin.schemas import BODIES, Body, NodeActionBody, parse
from api.admin.store import Resources
from api.admin.token_store import Scope
from api.checks.schemas import is_request_id, shown_name
from api.problems import Malformed, Problem
from api.runtime import Runtime
from api.stats import cluster
from api.stats.nodes import nodes
from api.web.admin_auth import AdminAuth, Authorized
from api.web.intake import read_json_body
from api.web.json_response import json_response

_DEFAULT_LIMIT = 50
_CSV_LIMIT = 1_000_000
#: How many exports a node sends at a time. Each has a thread for as long as its reader takes.
_EXPORTS = 4
_EXPORT_RETRY_S = 5
#: What a token with `licenses:write` alone is shown of what it writes.
_UNREAD = ("id", "key")

B = TypeVar("B", bound=Body)


def blueprint(runtime: Runtime, auth: AdminAuth) -> Blueprint:
    """The admin calls on `runtime`."""
    admin = Blueprint("admin", __name__, url_prefix="/v1")
    resources = Resources(runtime.admins, runtime.node, runtime.clock, runtime.state.changes, runtime.evidence)
    guard = _AdminGuard(runtime, auth)

    @admin.after_request
    def change_is_known(response: Response) -> Response:
        # Before the answer leaves: no worker of this node says yes from a copy made before the change. What was refused
        # changed nothing; what ended in a 5xx may have.
        if request.method in ("POST", "PATCH", "DELETE") and not 400 <= response.status_code < 500:
            runtime.state.changes.everything_changed()
        return response

    for kind in Kind:
        _add_resource(admin, kind, guard, resources)
    _add_actions(admin, guard, resources)
    _add_events(admin, guard, resources, _Exports(runtime.settings.workers))
    _add_nodes(admin, guard, resources, runtime)
    return admin


class Written(msgspec.Struct, Generic[B], frozen=True):
    """A call that changes something. `shown`: its token may also read what it changes."""

    body: B
    effect: Effect
    shown: bool

    def answer(self, write: Callable[[], dict[str, Any]], made_in: str | None = None) -> Response:
        """The resource that `write` gives, or the license that it conflicts with, as far as the caller may see it.

        `made_in`: the path of the collection to which `write` adds, for a 201 with the new resource's own path.
        """
        try:
            written = self._visible(write())
            if made_in is None:
                return json_response(written)
            return json_response(written, 201, {"Location": f"{made_in}/{written['id']}"})
        except Problem as problem:
            if "license" in problem.members:
                problem.members["license"] = self._visible(problem.members["license"])
            raise

    def _visible(self, resource: dict[str, Any]) -> dict[str, Any]:
        """All of it; for a token that may not read, its id and, of a license that was given one, the key."""
        return resource if self.shown else {name: resource[name] for name in _UNREAD if name in resource}


class _AdminGuard:
    """Lets a call in, refusing in the contract's order: size, type, token, scope, query."""

    def __init__(self, runtime: Runtime, auth: AdminAuth) -> None:
        self._runtime = runtime
        self._auth = auth

    def read(self, scope: Scope = Scope.LICENSES_READ, *, lists: bool = False) -> dict[str, str]:
        """The query's parameters, of which only `lists` have any."""
        self._auth.require(request, scope)
        return _query(lists)

    def write(self, type: type[B], scope: Scope = Scope.LICENSES_WRITE, *, bodiless: bool = False) -> Written[B]:
        """A call that changes something, well formed; a `bodiless` one may come without a body. Raises `STARTING`."""
        raw, caller = self.take(scope, bodiless=bodiless)
        key = _idempotency_key()
        body = parse(type, raw)
        self.started()
        return Written(body, self._effect(key, caller, body), Scope.LICENSES_READ in caller.scopes)

    def take(self, scope: Scope = Scope.LICENSES_WRITE, *, bodiless: bool = False) -> tuple[bytes, Authorized]:
        """The raw body, `{}` where a `bodiless` call has none, and who sent it."""
        has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        raw = read_json_body(request) if has_body or not bodiless else b"{}"
        caller = self._auth.require(request, scope)
        _query(allowed=False)
        return raw, caller

    def started(self) -> None:
        """To be called once the call itself is found to be well formed. Raises `STARTING`."""
        self._runtime.require_started()

    def _effect(self, key: str | None, caller: Authorized, body: Body) -> Effect:
        if key is None:
            return EVERY_TIME
        held, current = self._runtime.settings.signing_keys, self._runtime.signer.kid
        return Once(key, caller.token_hash, request.path, body, held, current)


def _add_resource(admin: Blueprint, kind: Kind, guard: _AdminGuard, resources: Resources) -> None:
    many, one = f"/{kind.plural}", f"/{kind.plural}/<id>"

    def page() -> Response:
        query = guard.read(lists=True)
        limit, cursor = _page(query)
        guard.started()
        return json_response(resources.page(kind, query, limit, cursor))

    def create() -> Response:
        call = guard.write(BODIES[kind])
        return call.answer(lambda: resources.create(kind, call.body, call.effect), made_in=f"/v1{many}")

    def get(id: str) -> Response:
        guard.read()
        guard.started()
        return json_response(resources.get(kind, id))

    def update(id: str) -> Response:
        call = guard.write(BODIES[kind])
        return call.answer(lambda: resources.update(kind, id, call.body))

    def delete(id: str) -> Response:
        guard.take(bodiless=True)
        guard.started()
        resources.delete(kind, id)
        return Response(status=204)

    for rule, method, view in (
        (many, "GET", page),
        (many, "POST", create),
        (one, "GET", get),
        (one, "PATCH", update),
        (one, "DELETE", delete),
    ):
        _route(admin, rule, method, f"{kind}-{view.__name__}", view)


def _add_actions(admin: Blueprint, guard: _AdminGuard, resources: Resources) -> None:
    def act(id: str, action: str) -> Response:
        call = guard.write(ACTIONS[action].body, bodiless=True)
        return call.answer(lambda: resources.act(id, action, call.body, call.effect))

    _route(admin, f"/licenses/<id>/actions/<any({', '.join(map(repr, ACTIONS))}):action>", "POST", "license-act", act)


class _Exports:
    """The places for exports of one worker, which are few."""

    def __init__(self, workers: int) -> None:
        self._free = threading.BoundedSemaphore(max(1, _EXPORTS // workers))

    @contextlib.contextmanager
    def place(self) -> Iterator[contextlib.ExitStack]:
        """Takes a place, until the stack is closed. Raises `RATE_LIMITED`."""
        if not self._free.acquire(blocking=False):
            detail = "this node sends as many exports as it does at a time"
            raise Problem("RATE_LIMITED", detail, retry_after=_EXPORT_RETRY_S)
        with contextlib.ExitStack() as held:
            held.callback(self._free.release)
            yield held


def _add_events(admin: Blueprint, guard: _AdminGuard, resources: Resources, exports: _Exports) -> None:
    def events() -> Response:
        query = guard.read(lists=True)
        if request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv":
            count = _rows(query)
            guard.started()
            with exports.place() as held:
                return _csv(event_log.COLUMNS, islice(resources.events(query), count), held)
        limit, cursor = _page(query)
        guard.started()
        return json_response(resources.events_page(query, limit, cursor))

    _route(admin, "/events", "GET", "events", events)


def _add_nodes(admin: Blueprint, guard: _AdminGuard, resources: Resources, runtime: Runtime) -> None:
    def all() -> Response:
        guard.read(Scope.STATS_READ)
        guard.started()
        return json_response({"items": nodes(runtime.admins, runtime.clock.now()), "next": None})

    def act(action: str) -> Response:
        call = guard.write(NodeActionBody, Scope.NODES_WRITE)
        timeout = runtime.settings.heartbeat_timeout

        def handed_over() -> dict[str, Any]:
            recorded = partial(call.effect.record, now=runtime.clock.now())
            promote = action == "promote"
            return cluster.hand_to(runtime.admins, call.body.to, timeout, promote=promote, recorded=recorded)

        return json_response(resources.once(call.effect, handed_over))

    _route(admin, "/nodes", "GET", "nodes", all)
    _route(admin, "/nodes/actions/<any(switchover, promote):action>", "POST", "node-act", act)


def _csv(columns: tuple[str, ...], rows: Iterator[dict[str, Any]], held: contextlib.ExitStack) -> Response:
    """An answer of CSV that releases what is `held` when it has been sent, or its client has gone."""
    # The first row is read before the answer begins, so that a ledger out of reach is still a 503.
    begun = list(zip(range(1), rows, strict=False))
    text = marked_if_broken(to_csv(columns, chain((row for _, row in begun), rows)))
    sending = held.pop_all()
    answer = Response(_while_held(text, sending), content_type="text/csv; charset=utf-8")
    answer.call_on_close(sending.close)  # where nothing of it was taken
    return answer


def _while_held(text: Iterator[str], held: contextlib.ExitStack) -> Iterator[str]:
    with held:
        yield from text


def _route(admin: Blueprint, rule: str, method: str, name: str, view: Callable[..., Response]) -> None:
    admin.add_url_rule(rule, name, view, methods=[method])


def _idempotency_key() -> str | None:
    """The request's `Idempotency-Key`; None where a call may be repeated anyway, or has none. Raises `Malformed`."""
    sent = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    if sent is not None and not is_request_id(sent):
        raise Malformed("Idempotency-Key", "must be 8 to 64 of A-Z a-z 0-9 _ -, and not of a license key's form")
    return sent


def _page(query: dict[str, str]) -> tuple[int, str | None]:
    """Takes `limit` and `cursor` out of `query`. Raises `Malformed`."""
    limit = query.pop("limit", str(_DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4):
        raise Malformed("limit", "must be a whole number")
    return int(limit), query.pop("cursor", None)


def _rows(query: dict[str, str]) -> int | None:
    """Takes CSV's `limit` out of `query`: so many rows, None for all. Raises `Malformed`, also for a `cursor`."""
    if "cursor" in query:
        raise Malformed("cursor", "is for pages of JSON: CSV comes in one piece, of at most `limit` rows")
    limit = query.pop("limit", None)
    if limit is None:
        return None
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 7 and 1 <= int(limit) <= _CSV_LIMIT):
        raise Malformed("limit", f"must be a whole number from 1 to {_CSV_LIMIT}")
    return int(limit)


def _query(allowed: bool) -> dict[str, str]:
    """The query's parameters. Raises `Malformed` for one that is repeated, and for any where none is allowed."""
    for name, values in request.args.lists():
        if not allowed:
            raise Malformed(shown_name(name), "is not known: this call takes no query string")
        if len(values) > 1:
            raise Malformed(shown_name(name), "stands there more than once")
    return request.args.to_dict()
