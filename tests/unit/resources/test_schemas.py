"""What admins may send: every field's bounds, and each refusal with the name of the field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.admin.kinds import Kind
from api.admin.license_rows import new_key
from api.admin.schemas import BODIES, PolicyBody, RenewBody, moment, parse, sent
from api.licensing import Policy
from api.problems import Malformed
from api.signing.license_key import looks_mistyped

POLICY, LICENSE, PRODUCT, MACHINE = Kind.POLICY, Kind.LICENSE, Kind.PRODUCT, Kind.MACHINE


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (PRODUCT, "code", ""),
        (PRODUCT, "code", "two words"),
        (PRODUCT, "code", "-x"),
        (PRODUCT, "code", "x" * 65),
        (PRODUCT, "code", None),
        (PRODUCT, "code", "x\n"),
        (PRODUCT, "name", ""),
        (PRODUCT, "name", "x" * 201),
        (PRODUCT, "name", "a\x00b"),
        (PRODUCT, "id", "x"),
        (POLICY, "duration_days", 0),
        (POLICY, "duration_days", 36_501),
        (POLICY, "duration_days", 1.5),
        (POLICY, "duration_days", "30"),
        (POLICY, "duration_days", True),
        (POLICY, "duration_days", 10**400),
        (POLICY, "grace_days", -1),
        (POLICY, "grace_days", None),
        (POLICY, "expiry_basis", "sale"),
        (POLICY, "expiry_strategy", "none"),
        (POLICY, "max_machines", 0),
        (POLICY, "max_machines", 1_000_001),
        (POLICY, "max_uses", 0),
        (POLICY, "floating", 1),
        (POLICY, "overage", "3x"),
        (POLICY, "cull", "delete"),
        (POLICY, "machine_heartbeat_s", 0),
        (POLICY, "check_in_days", 0),
        (POLICY, "entitlements", None),
        (POLICY, "entitlements", ["x"] * 101),
        (POLICY, "versions", ""),
        (POLICY, "versions", "about 3"),
        (POLICY, "versions", ">=1,<"),
        (POLICY, "offline_ttl_s", 0),
        (POLICY, "moves_per_30d", -1),
        (POLICY, "release_stale_days", 0),
        (POLICY, "rules_json", "{}"),
        (LICENSE, "policy", "no id"),
        (LICENSE, "policy", None),
        (LICENSE, "email", "nobody"),
        (LICENSE, "email", "a b@c.de"),
        (LICENSE, "email", "a@" + "b" * 320),
        (LICENSE, "expires_at", "2027-01-01"),
        (LICENSE, "expires_at", "2027-01-01T00:00:00"),
        (LICENSE, "expires_at", "2027-02-30T00:00:00Z"),
        (LICENSE, "expires_at", "1969-12-31T23:59:59Z"),
        (LICENSE, "expires_at", "0001-01-01T00:00:00+14:00"),
        (LICENSE, "expires_at", "9999-12-31T23:59:59-14:00"),
        (LICENSE, "expires_at", 1_800_000_000),
        (LICENSE, "max_machines", 0),
        (LICENSE, "metadata", []),
        (LICENSE, "metadata", {"x": "y" * 17_000}),
        (LICENSE, "external_ref", ""),
        (LICENSE, "external_ref", "x" * 201),
        (LICENSE, "key", "short"),
        (LICENSE, "key", "x" * 129),
        (LICENSE, "key", "1234567\n"),
        (LICENSE, "status", "active"),
        (MACHINE, "fingerprint", ""),
        (MACHINE, "fingerprint", "x" * 129),
        (MACHINE, "name", "a\tb"),
        (MACHINE, "platform", "x" * 201),
    ],
)
def test_a_field_that_is_not_as_it_should_be_is_named(kind: Kind, field: str, value: Any) -> None:
    with pytest.raises(Malformed) as refused:
        parse(BODIES[kind], {field: value} if not isinstance(value, int) else f'{{"{field}": {_json(value)}}}'.encode())
    assert refused.value.members["field"] == field


def _json(value: int) -> str:
    return str(value).lower() if isinstance(value, bool) else f"1{'0' * 400}" if value > 2**64 else str(value)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'"x"', b"{", b'{"name": "\\ud800"}', b"\xff", b"[" * 60_000, b'{"a":' * 9_000]
)
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(BODIES[LICENSE], raw)


def test_deep_metadata_is_refused_and_not_fatal() -> None:
    with pytest.raises(Malformed):
        parse(BODIES[LICENSE], b'{"metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (LICENSE, {"email": "jürgen@exämple.de", "expires_at": "2027-01-01T00:00:00+02:00", "key": "12345678"}),
        (LICENSE, dict.fromkeys(["name", "email", "expires_at", "max_machines", "metadata", "external_ref", "key"])),
        (LICENSE, {"metadata": {"nul": "\x00", "big": 10**30, "list": [None, True, 1.5]}}),
        (POLICY, {"versions": ">=1,<3", "overage": "1.25x", "duration_days": 36_500, "offline_ttl_s": None}),
        (PRODUCT, {"code": "My.App-2", "name": "Größe 'x'; DROP TABLE products; --"}),
    ],
)
def test_what_is_as_it_should_be_is_taken(kind: Kind, body: dict[str, Any]) -> None:
    assert sent(parse(BODIES[kind], body)).keys() == body.keys()


def test_only_what_was_sent_is_given_back() -> None:
    assert sent(parse(PolicyBody, {"grace_days": 3, "max_uses": None})) == {"grace_days": 3, "max_uses": None}


def test_every_rule_of_a_policy_can_be_sent() -> None:
    assert {*Policy.__struct_fields__} == {*PolicyBody.__struct_fields__, "id"}


def test_the_default_of_every_rule_is_a_value_that_may_be_sent() -> None:
    defaults = msgspec.to_builtins(Policy(id="", product="p", name="n"))
    del defaults["id"]
    assert sent(parse(PolicyBody, defaults)).keys() == defaults.keys()


def test_an_action_refuses_what_it_does_not_know() -> None:
    with pytest.raises(Malformed) as refused:
        parse(RenewBody, {"weeks": 2})
    assert refused.value.members["field"] == "weeks"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0.0), ("1764000000", 1764000000.0), ("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T01:00:00+01:00", 0.0)],
)
def test_a_moment_is_rfc_3339_or_unix_seconds(text: str, expected: float) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize("text", ["", "now", "-1", "1e9", "2026-01-01", "2026-01-01T00:00:00", "9" * 13, "１２"])
def test_any_other_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        moment(text)


def test_keys_are_long_readable_and_never_the_same() -> None:
    keys = {new_key() for _ in range(1_000)}
    assert len(keys) == 1_000
    assert all(len(key) == 31 and not set(key) & set("ILOU") for key in keys)
    assert not any(looks_mistyped(key) for key in keys)
