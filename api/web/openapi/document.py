"""The OpenAPI 3.1 document, made from the routes and from the structs that the code itself decodes and encodes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

import msgspec

from api.licensing import Code
from api.problems import PROBLEMS
from api.web.openapi.client_routes import CLAIMS
from api.web.openapi.routes import Parameter, Route

_SCHEMAS = "#/components/schemas/{name}"
#: What any route may answer besides its own: the server may always be busy or starting, and a request be cut short.
_ALWAYS = (400, 503)
_BROUGHT_BY = {"client": (401, 413, 415, 429), "admin": (401, 403, 429), "none": ()}
_WITH_BODY = (413, 415)
#: Codes that only calls of one kind meet. That there is no such route is no answer of a route.
_ONLY_OF = {
    "client": frozenset({"API_KEY_INVALID", "TIMESTAMP_SKEWED", "SIGNATURE_INVALID", "REQUEST_ID_REUSED"}),
    "admin": frozenset({"TOKEN_INVALID", "IDEMPOTENCY_KEY_REUSED"}),
    "none": frozenset({"ROUTE_NOT_FOUND"}),
}

_DESCRIPTION = (
    "Signed license checks. A verdict, good or bad, is 200 with a signed body; everything else is a problem. "
    "Clients act only on the claims of the signed tokens."
)
_TAGS = {
    "Client calls": "What programs ask. Each answer is a signed verdict.",
    "Node": "What a node says of itself to anyone.",
    "Products": "What is sold; its `code` is what clients send.",
    "Policies": "The rules that licenses are sold under.",
    "Licenses": "What a customer has, and what can be done to it.",
    "Machines": "Who holds a license's seats.",
    "Log": "What happened, by ascending place.",
    "Cluster": "The nodes, who leads, and the numbers.",
    "Access": "Admin tokens, and the public halves of the keys that sign.",
}
_SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "An admin token, or one of fewer scopes"},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The node's API key, unless its operator has switched `REQUIRE_API_KEY` off",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Signature",
        "description": "`v1,` and base64 of HMAC-SHA256(secret, `{X-Request-Id}.{X-Timestamp}.{METHOD} {path}.` + "
        "body), unless the node's operator has switched `REQUIRE_SIGNATURE` off",
    },
}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "client": [{"apiKey": [], "signature": []}],
    "admin": [{"token": []}],
    "none": [],
}
_HEADERS: dict[str, dict[str, Any]] = {
    "Retry-After": {
        "description": "In so many seconds this node may be asked again; the next one may be asked at once",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "The scheme that was missing: `ApiKey` or `Signature` of clients, `Bearer` of admins",
        "schema": {"type": "string"},
    },
    "Location": {"description": "The path of what was made", "schema": {"type": "string", "format": "uri-reference"}},
}
_HEADERS_OF = {201: ("Location",), 401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


class BadRowView(msgspec.Struct, kw_only=True):
    """A row of an import that cannot be taken, by its place (1 for the first)."""

    row: int
    field: str
    detail: str


class ProblemBody(msgspec.Struct, kw_only=True):
    """RFC 9457, with `code` for programs and `request_id` for the logs.

    `field`: what of a malformed request is wrong; `ts`: the node's time, for a wrong clock; `scope`: the one that a
    token lacks; `verdict`: why a machine gets no seat; `license`: the one that a new one conflicts with; `rows`: the
    bad ones of an import.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    ts: int | msgspec.UnsetType = msgspec.UNSET
    scope: str | msgspec.UnsetType = msgspec.UNSET
    verdict: Code | msgspec.UnsetType = msgspec.UNSET
    license: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    rows: list[BadRowView] | msgspec.UnsetType = msgspec.UNSET


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document, JSON-ready."""
    listed = list(routes)
    types = _types(listed)
    schemas, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    schema_of = dict(zip(map(id, types), schemas, strict=True))
    components["ProblemBody"]["properties"]["code"] = {"type": "string", "enum": list(PROBLEMS)}
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(route.path, {})[route.method] = _operation(route, schema_of)
    used = {route.tag for route in listed}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "protecao",
            "version": version,
            "description": _DESCRIPTION,
            "contact": {"name": "The operator of this node"},
        },
        "servers": [{"url": "/", "description": "This node"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": _portable(components),
            "headers": {name: {"required": True, **header} for name, header in _HEADERS.items()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _types(routes: list[Route]) -> list[Any]:
    found: list[Any] = [ProblemBody, *CLAIMS]
    for route in routes:
        for one in (route.body, *chain.from_iterable(map(_structs, route.answers.values()))):
            if one is not None and not isinstance(one, str) and not any(one is other for other in found):
                found.append(one)
    return found


def _structs(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _operation(route: Route, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    scope = "" if route.scope is None else f"Needs the scope `{route.scope}`."
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": " ".join(filter(None, (scope, route.note))),
        "tags": [route.tag],
        "operationId": route.name,
        "security": _SECURITY[route.security],
        "responses": _responses(route, schema_of),
    }
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body is not None:
        content: dict[str, Any] = {"schema": schema_of[id(route.body)]}
        if route.example:
            content["example"] = route.example
        operation["requestBody"] = {"required": not route.bodiless, "content": {"application/json": content}}
    return operation


def _responses(route: Route, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    statuses = {*route.problems, *_BROUGHT_BY[route.security], *_ALWAYS}
    if route.body is not None:
        statuses |= set(_WITH_BODY)
    problem = {"application/problem+json": {"schema": schema_of[id(ProblemBody)]}}
    responses = {status: _response(_codes(route, status), status) | {"content": dict(problem)} for status in statuses}
    for status, answer in route.answers.items():
        described = responses.setdefault(status, _response("Done", status))
        if content := _content(route, answer, schema_of):
            described["content"] = described.get("content", {}) | content
    return {str(status): responses[status] for status in sorted(responses)}


def _response(description: str, status: int) -> dict[str, Any]:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS_OF.get(status, ())}
    return {"description": description} | ({"headers": headers} if headers else {})


def _content(route: Route, answer: Any, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """By media type, what is answered where there is no problem."""
    if answer is None:
        return {}
    text = {"schema": {"type": "string"}}
    if isinstance(answer, str):
        own: dict[str, Any] = {answer: text}
    else:
        schemas = [schema_of[id(one)] for one in _structs(answer)]
        own = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    return own | dict.fromkeys(route.also, text)


def _codes(route: Route, status: int) -> str:
    others = frozenset().union(*(codes for kind, codes in _ONLY_OF.items() if kind != route.security))
    return ", ".join(code for code, (of, _) in PROBLEMS.items() if of == status and code not in others)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    written = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "schema": parameter.schema,
    }
    return written | ({"description": parameter.description} if parameter.description else {})


def _portable(components: dict[str, Any]) -> dict[str, Any]:
    r"""JSON Schema's patterns are ECMAScript's, which has no `\Z`: its `$` already means the very end.

    Docstrings lose their indentation: descriptions are CommonMark, where it would make code of them.
    """
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    portable: dict[str, Any] = json.loads(json.dumps(components).replace("\\\\Z", "$"))
    return portable
