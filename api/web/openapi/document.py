"""The OpenAPI 3.1 document, made from the routes and from the structs that the code itself decodes and encodes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from api.problems import PROBLEMS
from api.web.openapi.routes import Parameter, Route

_REF = "#/components/schemas/{name}"
#: What any route may answer besides its own: the server may always be busy or starting.
_ALWAYS = (503,)
_BROUGHT_BY = {"client": (400, 401, 413, 415, 429), "admin": (400, 401, 403, 429), "none": ()}
_WITH_BODY = (413, 415)


class ProblemBody(msgspec.Struct, kw_only=True):
    """RFC 9457, with `code` for programs and `request_id` for the logs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document, JSON-ready."""
    listed = list(routes)
    types = _types(listed)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(map(id, types), schemas, strict=True))
    components["ProblemBody"]["properties"]["code"] = {"type": "string", "enum": list(PROBLEMS)}
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(route.path, {})[route.method] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "protecao", "version": version, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": _portable(components),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "An admin token"}},
        },
    }


_DESCRIPTION = (
    "Signed license checks. A verdict, good or bad, is 200 with a signed body; everything else is a problem. "
    "Clients act only on the claims of the signed tokens."
)


def _types(routes: list[Route]) -> list[Any]:
    found: list[Any] = [ProblemBody]
    for route in routes:
        for one in (route.body, *route.answers.values()):
            if one is not None and not isinstance(one, str) and not any(one is other for other in found):
                found.append(one)
    return found


def _operation(route: Route, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.tag],
        "operationId": f"{route.method} {route.path}".translate(_OPERATION_ID),
        "responses": _responses(route, schema_of),
    }
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body is not None:
        content: dict[str, Any] = {"schema": schema_of[id(route.body)]}
        if route.example:
            content["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    if route.security == "admin":
        operation["security"] = [{"token": []}]
        operation["description"] = " ".join(filter(None, (f"Needs the scope `{route.scope}`.", route.note)))
    return operation


_OPERATION_ID = str.maketrans({" ": "_", "/": "_", "{": None, "}": None, ".": "_", "-": "_"})


def _responses(route: Route, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    statuses = {*route.problems, *_BROUGHT_BY[route.security], *_ALWAYS}
    if route.body is not None:
        statuses |= set(_WITH_BODY)
    problem = {"application/problem+json": {"schema": schema_of[id(ProblemBody)]}}
    responses: dict[str, Any] = {
        str(status): {"description": _codes(status), "content": dict(problem)} for status in sorted(statuses)
    }
    for status, answer in route.answers.items():
        described = responses.setdefault(str(status), {"description": "Done", "content": {}})
        if isinstance(answer, str):
            described["content"][answer] = {"schema": {"type": "string"}}
        elif answer is not None:
            described["content"]["application/json"] = {"schema": schema_of[id(answer)]}
        described["content"] |= {media: {"schema": {"type": "string"}} for media in route.also}
        if not described["content"]:
            del described["content"]
    return dict(sorted(responses.items()))


def _codes(status: int) -> str:
    return ", ".join(code for code, (of, _) in PROBLEMS.items() if of == status)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    written = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "schema": parameter.schema,
    }
    return written | ({"description": parameter.description} if parameter.description else {})


def _portable(components: dict[str, Any]) -> dict[str, Any]:
    r"""JSON Schema's patterns are ECMAScript's, which has no `\Z`: its `$` already means the very end."""
    portable: dict[str, Any] = json.loads(json.dumps(components).replace("\\\\Z", "$"))
    return portable
