"""The calls of admins: resources, license actions, the log, nodes. Bearer tokens only, and never across origins."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

from flask import Blueprint, Response, request
from msgspec import UNSET
from msgspec.structs import replace

from api.admin.actions import ACTIONS
from api.admin.bulk import imported
from api.admin.kinds import Kind
from api.admin.licenses import COLUMNS
from api.admin.schemas import BODIES, NEW_BODIES, Body, ImportBody, NewLicenseBody, NodeActionBody
from api.admin.store import Resources
from api.admin.token_store import Scope
from api.runtime import Runtime
from api.stats import cluster
from api.stats.nodes import nodes
from api.web import admin_access
from api.web.admin_auth import AdminAuth
from api.web.admin_exports import Exports, add_events, add_export, csv_of, wants_csv
from api.web.admin_guard import AdminGuard, Written, add_route, page_of, rows_of
from api.web.json_response import json_response


def blueprint(runtime: Runtime, auth: AdminAuth) -> Blueprint:
    """The admin calls on `runtime`."""
    admin = Blueprint("admin", __name__, url_prefix="/v1")
    resources = Resources(runtime.admins, runtime.node, runtime.clock, runtime.state.changes, runtime.evidence)
    guard = AdminGuard(runtime, auth)

    @admin.after_request
    def change_is_known(response: Response) -> Response:
        # Before the answer leaves: no worker of this node says yes from a copy made before the change. What was refused
        # changed nothing; what ended in a 5xx may have.
        if request.method in ("POST", "PATCH", "DELETE") and not 400 <= response.status_code < 500:
            runtime.state.changes.everything_changed()
        return response

    exports = Exports(runtime.settings.workers)
    for kind in Kind:
        _add_resource(admin, kind, guard, resources, exports)
    _add_actions(admin, guard, resources)
    _add_import(admin, guard, resources)
    add_export(admin, guard, resources, exports)
    add_events(admin, guard, resources, exports)
    _add_findings(admin, guard, resources)
    _add_nodes(admin, guard, resources, runtime)
    admin_access.add_tokens(admin, guard, resources)
    admin_access.add_keys(admin, guard, resources, {key.kid for key in runtime.settings.signing_keys})
    return admin


def _add_resource(admin: Blueprint, kind: Kind, guard: AdminGuard, resources: Resources, exports: Exports) -> None:
    many, one = f"/{kind.plural}", f"/{kind.plural}/<id>"

    def page() -> Response:
        query = guard.read(lists=True)
        if kind is Kind.LICENSE and wants_csv():
            count = rows_of(query)
            guard.started()
            with exports.place() as held:
                return csv_of(COLUMNS, islice(resources.licenses(query), count), held)
        limit, cursor = page_of(query)
        guard.started()
        return json_response(resources.page(kind, query, limit, cursor))

    def create() -> Response:
        call = guard.write(NEW_BODIES[kind])
        return call.answer(lambda: _created(resources, kind, call), made_in=f"/v1{many}")

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
        add_route(admin, rule, method, f"{kind}-{view.__name__}", view)


def _created(resources: Resources, kind: Kind, call: Written[Body]) -> dict[str, Any]:
    """The new resource, or a list of the new licenses where their `count` was sent."""
    body = call.body
    if not isinstance(body, NewLicenseBody) or body.count is UNSET:
        return resources.create(kind, body, call.effect)
    return {"items": resources.create_many(body, body.count, call.effect), "next": None}


def _add_import(admin: Blueprint, guard: AdminGuard, resources: Resources) -> None:
    def import_() -> Response:
        # A check says what the import itself would be answered, the import that was done already included.
        call = guard.write(ImportBody, bound=lambda body: replace(body, check=False))
        taken = resources.import_licenses(call.body.rows, call.effect, check=call.body.check)
        return json_response(imported(taken, check=call.body.check))

    add_route(admin, "/licenses/import", "POST", "licenses-import", import_)


def _add_findings(admin: Blueprint, guard: AdminGuard, resources: Resources) -> None:
    def page() -> Response:
        query = guard.read(lists=True)
        limit, cursor = page_of(query)
        guard.started()
        return json_response(resources.findings_page(query, limit, cursor))

    add_route(admin, "/findings", "GET", "findings", page)


def _add_actions(admin: Blueprint, guard: AdminGuard, resources: Resources) -> None:
    def act(id: str, action: str) -> Response:
        call = guard.write(ACTIONS[action].body, bodiless=True)
        return call.answer(lambda: resources.act(id, action, call.body, call.effect))

    add_route(
        admin, f"/licenses/<id>/actions/<any({', '.join(map(repr, ACTIONS))}):action>", "POST", "license-act", act
    )


def _add_nodes(admin: Blueprint, guard: AdminGuard, resources: Resources, runtime: Runtime) -> None:
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

    add_route(admin, "/nodes", "GET", "nodes", all)
    add_route(admin, "/nodes/actions/<any(switchover, promote):action>", "POST", "node-act", act)
