"""Whatever an admin sends, nothing is answered 500 and nothing is half done: every field, every hostile value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.admin.actions import ACTIONS
from api.admin.kinds import Kind
from api.admin.schemas import BODIES
from api.ledger import tables
from tests.support.admin import Admin, admin_on
from tests.support.nodes import rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


#: JSON texts.
HOSTILE = [
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e400",
    "9223372036854775808",
    "1" + "0" * 400,
    "1" + "0" * 6_000,
    '""',
    '" "',
    '"\\u0000"',
    '"a\\u0000b@c.de"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u202e\\ufeff"',
    '"\'; DROP TABLE licenses; --"',
    '"%(x)s :x ? {0} $1"',
    json.dumps("x" * 10_000),
    json.dumps("😀" * 200),
    "[]",
    "[null]",
    '["\\u0000"]',
    "{}",
    '{"\\u0000": "\\u0000"}',
    '{"a": 1e308}',
    "[" * 3_000 + "]" * 3_000,
    '{"a":' * 3_000 + "1" + "}" * 3_000,
    "NaN",
]


def answered(admin: Admin, method: str, path: str, raw: bytes) -> int:
    """The status of a call that must be answered well, whatever it is."""
    response = admin.send(method, path, raw)
    assert response.status_code < 500, (method, path, raw[:200], response.text)
    if response.status_code >= 400:
        assert json.loads(response.data)["code"] in ("MALFORMED", "CONFLICT", "BODY_TOO_LARGE", "RESOURCE_NOT_FOUND")
    return response.status_code


def with_field(good: dict[str, Any], name: str, value: str) -> bytes:
    """The JSON of `good`, `name` being the JSON text `value`."""
    rest = json.dumps({key: held for key, held in good.items() if key != name})
    return f'{rest[:-1]}{", " if len(rest) > 2 else ""}"{name}": {value}}}'.encode()


@pytest.mark.parametrize("kind", Kind)
def test_no_value_of_any_field_breaks_anything(admin: Admin, kind: Kind) -> None:
    license = admin.license(admin.policy(floating=True))
    good = {
        Kind.PRODUCT: {"name": "x"},
        Kind.POLICY: {"product": license["product"], "name": "x"},
        Kind.LICENSE: {"policy": license["policy"]},
        Kind.MACHINE: {"license": license["id"], "fingerprint": "x"},
    }[kind]
    made = {
        Kind.PRODUCT: lambda: admin.product(),
        Kind.POLICY: lambda: admin.policy(),
        Kind.LICENSE: lambda: admin.license(),
        Kind.MACHINE: lambda: admin.ok("POST", "/machines", good),
    }[kind]()
    for name in (*BODIES[kind].__struct_fields__, "unknown"):
        for value in HOSTILE:
            answered(admin, "POST", f"/{kind.plural}", with_field(good, name, value))
            answered(admin, "PATCH", f"/{kind.plural}/{made['id']}", with_field({}, name, value))
    # What was taken among it can be read again, by admins and by clients.
    cursor = ""
    while cursor is not None:
        page = admin.ok("GET", f"/{kind.plural}?limit=100{cursor and '&cursor='}{cursor}")
        cursor = page["next"]
    assert admin.node.call("validate", license["key"]).code == "VALID"


@pytest.mark.parametrize("action", ACTIONS)
def test_no_body_of_an_action_breaks_anything(admin: Admin, action: str) -> None:
    for value in HOSTILE:
        id = admin.license()["id"]
        answered(admin, "POST", f"/licenses/{id}/actions/{action}", value.encode())
        for name in ("days", "key"):
            answered(admin, "POST", f"/licenses/{id}/actions/{action}", with_field({}, name, value))


def test_a_refused_change_leaves_no_trace(admin: Admin) -> None:
    license = admin.license(name="Ada")
    before = rows(admin.node.database, tables.events), rows(admin.node.database, tables.licenses)
    for body in (b"{", b"[]", b'{"name": 1}', b'{"name": "x", "email": "y"}', b'{"name": "x", "policy": "nobodys"}'):
        assert answered(admin, "PATCH", f"/licenses/{license['id']}", body) == 400
        assert answered(admin, "POST", "/licenses", body) == 400
    assert (rows(admin.node.database, tables.events), rows(admin.node.database, tables.licenses)) == before


def test_bodies_of_another_type_or_size_are_refused(admin: Admin) -> None:
    license = admin.license()
    for method, path in (("POST", "/licenses"), ("PATCH", f"/licenses/{license['id']}"), ("POST", "/products")):
        assert admin.problem(method, path, b"{}", **{"Content-Type": "text/plain"})["code"] == "UNSUPPORTED_MEDIA_TYPE"
        assert admin.problem(method, path, b" " * 65_537)["code"] == "BODY_TOO_LARGE"
        assert admin.problem(method, path)["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert admin.problem("POST", f"/licenses/{license['id']}/actions/ban", b" " * 65_537)["code"] == "BODY_TOO_LARGE"
