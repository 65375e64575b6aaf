"""The admin calls, as the OpenAPI document has them. What goes in is what the code decodes; what comes out is below."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from api.admin.actions import ACTIONS
from api.admin.event_log import FILTERS as EVENT_FILTERS
from api.admin.findings import FILTERS as FINDING_FILTERS
from api.admin.kinds import Kind
from api.admin.schemas import BODIES, NEW_BODIES, NodeActionBody, RenewBody
from api.licensing.model import Policy, Status
from api.node.clock import Timestamp
from api.web.openapi.access_routes import ACCESS_ROUTES, BULK_ROUTES
from api.web.openapi.routes import ID, IDEMPOTENCY_KEY, Parameter, Route
from api.web.openapi.shapes import list_of, requiring
from api.web.openapi.stats_view import BeatView, StatsView


class ProductView(msgspec.Struct, kw_only=True):
    id: str
    code: str
    name: str
    created_at: Timestamp


class _PolicyView(Policy, frozen=True, kw_only=True):
    __doc__ = Policy.__doc__

    created_at: Timestamp


class Inherited(msgspec.Struct, kw_only=True):
    """What a license has from its policy, those members only for which its own are null. A limit of null: none."""

    max_machines: int | msgspec.UnsetType | None = msgspec.UNSET
    max_uses: int | msgspec.UnsetType | None = msgspec.UNSET
    entitlements: list[str] | msgspec.UnsetType = msgspec.UNSET


class LicenseAdminView(msgspec.Struct, kw_only=True):
    """A license's own values; null where it inherits its policy's. `key` is there once, when it was made."""

    id: str
    policy: str
    policy_name: str
    product: str
    status: Status
    key_hint: str
    name: str | None
    email: str | None
    expires_at: Timestamp | None
    max_machines: int | None
    max_uses: int | None
    entitlements: list[str] | None
    metadata: dict[str, Any]
    external_ref: str | None
    inherited: Inherited
    uses: int
    machines: int
    created_at: Timestamp
    last_seen_at: Timestamp | None
    key: str | msgspec.UnsetType = msgspec.UNSET


class MachineAdminView(msgspec.Struct, kw_only=True):
    id: str
    license: str
    fingerprint: str
    name: str | None
    platform: str | None
    alive: bool
    created_at: Timestamp
    last_seen_at: Timestamp | None


class EventView(msgspec.Struct, kw_only=True):
    """One row of the log, by its place `seq`."""

    seq: int
    event_id: str
    type: str
    license_id: str | None
    machine_id: str | None
    node: str
    instance: str
    epoch: int
    mode: Literal["normal", "backup", "isolated"]
    occurred_at: Timestamp
    recorded_at: Timestamp
    data: dict[str, Any]


_VIEWS: dict[Kind, type[msgspec.Struct]] = {
    Kind.PRODUCT: ProductView,
    Kind.POLICY: requiring("PolicyView", _PolicyView),
    Kind.LICENSE: LicenseAdminView,
    Kind.MACHINE: MachineAdminView,
}
_FILTERS: dict[Kind, tuple[str, ...]] = {
    Kind.PRODUCT: ("q", "find"),
    Kind.POLICY: ("product", "q", "find"),
    Kind.LICENSE: ("product", "policy", "status", "email", "key_hint", "key_hash", "external_ref", "q", "find"),
    Kind.MACHINE: ("license", "fingerprint"),
}
_PAGE = (
    Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}),
    Parameter("cursor", "query", {"type": "string"}, "The `next` of the page before"),
)
_CSV_PAGE = (
    Parameter(
        "limit", "query", {"type": "integer", "minimum": 1, "maximum": 1_000_000},
        "JSON: rows of a page, 50 unless given and at most 100. With `Accept: text/csv`: rows in all, every row unless "
        "given",
    ),
    Parameter("cursor", "query", {"type": "string"}, "The `next` of the page before; JSON only, refused for CSV"),
)  # fmt: skip
_AFTER = Parameter(
    "after", "query", {"type": "string", "pattern": "^-?[0-9]{1,18}$"},
    "Begin behind this place (`seq`); `-20`: with the last 20 places. A reader that follows the log names the last "
    "`seq` it has",
)  # fmt: skip
_CSV = "With `Accept: text/csv` all that match, streamed, for a spreadsheet."
_COUNT = (
    "With `count` so many licenses that differ in their keys, each shown this once, in one transaction: the answer is "
    "a list."
)
_WITHOUT_READ = "A token without `licenses:read` is shown the `id` alone, and a license's new `key`."
_EXAMPLES: dict[Kind, dict[str, Any]] = {
    Kind.PRODUCT: {"code": "editor", "name": "My editor"},
    Kind.POLICY: {"product": "editor", "name": "yearly", "duration_days": 365, "max_machines": 3, "floating": True},
    Kind.LICENSE: {"policy": "7c1d2f3e-52c4-4f0a-8b1e-3a9d5c6b7e20", "email": "customer@example.com"},
    Kind.MACHINE: {"license": "0b9f5a1c-1d0e-4a57-9d3b-6f6f0e2f8a11", "fingerprint": "machine-1"},
}


#: What the filters of text do, where their names do not say it.
_ABOUT_FILTERS = {
    "q": "Terms, each of which begins a word of a name (a license's e-mail address, reference or hint too), whatever "
    "case and accents; or a license's whole key",
    "find": "What names one: its id, code, whole name, and of a license its key, hint, reference or e-mail address. "
    "More than one answer: it is ambiguous",
}


def _filters(names: tuple[str, ...]) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "query", {"type": "string"}, _ABOUT_FILTERS.get(name, "")) for name in names)


def _resource_routes(kind: Kind) -> tuple[Route, ...]:
    many, one, view = f"/v1/{kind.plural}", f"/v1/{kind.plural}/{{id}}", _VIEWS[kind]
    tag, read, write = kind.plural.capitalize(), "licenses:read", "licenses:write"
    listed = _filters(_FILTERS[kind]) + (_CSV_PAGE if kind is Kind.LICENSE else _PAGE)
    example, body = _EXAMPLES[kind], BODIES[kind]
    new = requiring(f"New{body.__name__}", NEW_BODIES[kind], body.REQUIRED)
    page = list_of(view, f"{kind.capitalize()}List")
    is_license = kind is Kind.LICENSE
    made: Any = (view, page) if is_license else view
    note = f"{_WITHOUT_READ} {_COUNT}" if is_license else _WITHOUT_READ
    return (
        Route(
            "get", many, f"list_{kind.plural}", f"List {kind.plural}", tag, "admin", {200: page}, None, listed,
            scope=read, also=("text/csv",) if is_license else (), note=_CSV if is_license else "",
        ),
        Route(
            "post", many, f"create_{kind}", f"Make a {kind}", tag, "admin", {201: made}, new, (IDEMPOTENCY_KEY,),
            (404, 409, 422), write, example, note=note,
        ),
        Route("get", one, f"get_{kind}", f"One {kind}", tag, "admin", {200: view}, None, (ID,), (404,), read),
        Route(
            "patch", one, f"update_{kind}", f"Change a {kind}", tag, "admin", {200: view}, body, (ID,), (404, 409),
            write, note=_WITHOUT_READ,
        ),
        Route(
            "delete", one, f"delete_{kind}", f"Remove a {kind}", tag, "admin", {204: None}, None, (ID,),
            (404, 409, 413, 415), write,
        ),
    )  # fmt: skip


def _action_route(name: str) -> Route:
    return Route(
        method="post",
        path=f"/v1/licenses/{{id}}/actions/{name}",
        name=f"{name.replace('-', '_')}_license",
        summary=f"{name.capitalize()} a license",
        tag="Licenses",
        security="admin",
        answers={200: LicenseAdminView},
        body=ACTIONS[name].body,
        parameters=(ID, IDEMPOTENCY_KEY),
        problems=(404, 409, 422),
        scope="licenses:write",
        example={"days": 30} if ACTIONS[name].body is RenewBody else {},
        note=_WITHOUT_READ,
        bodiless=True,
    )


class HandedOver(msgspec.Struct, kw_only=True):
    """The node that has the lease now, and its epoch."""

    to: str
    epoch: int


def _node_route(action: str) -> Route:
    path, summary = f"/v1/nodes/actions/{action}", f"{action.capitalize()}: hand the lease to a node"
    return Route(
        "post", path, action, summary, "Cluster", "admin", {200: HandedOver}, NodeActionBody, (IDEMPOTENCY_KEY,),
        (404, 409, 422), "nodes:write", {"to": "railway-1"},
    )  # fmt: skip


class NodeList(msgspec.Struct, kw_only=True):
    items: list[BeatView]
    next: None


class FindingView(msgspec.Struct, kw_only=True):
    """What replay found: a conflict (`kind` says which), or an event set aside after its tries (`dead`)."""

    event_id: str
    kind: str
    license_id: str | None
    node: str
    found_at: Timestamp
    data: dict[str, Any]


ADMIN_ROUTES: tuple[Route, ...] = (
    *(route for kind in Kind for route in _resource_routes(kind)),
    *(_action_route(name) for name in ACTIONS),
    *BULK_ROUTES,
    *ACCESS_ROUTES,
    Route(
        "get", "/v1/events", "list_events", "The log, by ascending place, as JSON or CSV", "Log", "admin",
        {200: list_of(EventView, "EventList")}, None, (*_filters(tuple(EVENT_FILTERS)), _AFTER, *_CSV_PAGE),
        scope="licenses:read", also=("text/csv",),
    ),
    Route(
        "get", "/v1/findings", "list_findings", "Conflicts, and events set aside", "Log", "admin",
        {200: list_of(FindingView, "FindingList")}, None, _filters(tuple(FINDING_FILTERS)) + _PAGE,
        scope="licenses:read",
    ),
    Route(
        "get", "/v1/nodes", "list_nodes", "The nodes, as last beaten", "Cluster", "admin", {200: NodeList},
        scope="stats:read",
    ),
    *(_node_route(action) for action in ("switchover", "promote")),
    Route(
        "get", "/stats", "get_stats", "What goes on", "Cluster", "admin", {200: StatsView}, scope="stats:read",
    ),
    Route(
        "get", "/metrics", "get_metrics", "For Prometheus", "Cluster", "admin", {200: "text/plain"}, scope="stats:read",
    ),
)  # fmt: skip
