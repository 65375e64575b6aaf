"""Licenses by the hundred: bulk creation, import and export, whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.admin.bulk import COLUMNS, BadRow
from api.admin.csv_text import guarded
from api.admin.kinds import Kind
from api.ledger import tables
from api.problems import Malformed
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def count(admin: Admin) -> int:
    return len(rows(admin.node.database, tables.licenses))


def events(admin: Admin) -> list[Json]:
    return rows(admin.node.database, tables.events)


def keys(n: int) -> list[str]:
    return [f"key-{uuid.uuid4()}" for _ in range(n)]


def refused(admin: Admin, rows: list[dict[str, Any]]) -> BadRow:
    """Why an import was refused; nothing of it was taken."""
    before = count(admin), len(events(admin))
    with pytest.raises(BadRow) as error:
        admin.resources.import_licenses(rows)
    assert (count(admin), len(events(admin))) == before
    return error.value


def test_many_licenses_are_made_in_one_event_and_each_has_its_key(admin: Admin) -> None:
    policy, before = admin.policy(duration_days=30), len(events(admin))
    made = admin.resources.create_many({"policy": policy["id"], "name": "Team", "metadata": {"batch": 1}}, 1_001)
    assert len({license["key"] for license in made}) == len({license["id"] for license in made}) == 1_001
    event = events(admin)[-1]
    assert len(events(admin)) == before + 1
    assert (event["type"], event["license_id"]) == ("license.created", None)
    stored = {row["id"]: row for row in rows(admin.node.database, tables.licenses, policy=policy["id"])}
    assert {row["seq"] for row in stored.values()} == {event["seq"]}
    assert admin.node.call("validate", made[500]["key"]).code == "VALID"
    shown = {name: value for name, value in made[0].items() if name != "key"}
    assert shown == admin.resources.get(Kind.LICENSE, made[0]["id"])


@pytest.mark.parametrize(
    ("fields", "number", "field"),
    [
        ({"key": "12345678"}, 2, "key"),
        ({"external_ref": "x"}, 2, "external_ref"),
        ({}, 0, "count"),
        ({}, 10_001, "count"),
        ({"email": "nobody"}, 2, "email"),
        ({"policy": "00000000-0000-7000-8000-000000000000"}, 2, "policy"),
    ],
)
def test_what_cannot_be_made_by_the_hundred_is_named(admin: Admin, fields: Json, number: int, field: str) -> None:
    with pytest.raises(Malformed) as error:
        admin.resources.create_many({"policy": admin.policy()["id"], **fields}, number)
    assert error.value.members["field"] == field


def test_an_import_takes_existing_keys_as_hashes(admin: Admin) -> None:
    policy, (one, two) = admin.policy(), keys(2)
    before = len(events(admin))
    first_row = {"policy": policy["id"], "key": one, "name": "Ada", "max_uses": "7", "entitlements": "pro; beta"}
    second_row = {
        "policy": policy["id"],
        "key": two,
        "name": "",
        "max_uses": None,
        "metadata": '{"a": [1]}',
        "uses": "3",
    }
    taken = admin.resources.import_licenses(iter([first_row, second_row]))
    assert taken == 2
    assert len(events(admin)) == before + 1
    assert (events(admin)[-1]["type"], events(admin)[-1]["data"]) == ("license.imported", '{"count":2}')
    first = admin.node.call("validate", one, entitlements=["beta"]).body["license"]
    assert (first["max_uses"], first["entitlements"]) == (7, ["pro", "beta"])
    second = admin.ok("GET", f"/licenses?policy={policy['id']}&key_hint={two[-4:]}")["items"][0]
    assert (second["name"], second["max_uses"], second["metadata"], second["uses"]) == (None, None, {"a": [1]}, 3)
    everything = [str(row) for table in tables.metadata.tables.values() for row in rows(admin.node.database, table)]
    assert not [row for row in everything if one in row or two in row]


def test_an_import_may_carry_what_was_before(admin: Admin) -> None:
    policy, (key,) = admin.policy(duration_days=10), keys(1)
    row = {"policy": policy["id"], "key": key, "status": "suspended", "created_at": "2020-01-01T00:00:00Z"}
    admin.resources.import_licenses([row])
    found = admin.ok("GET", f"/licenses?policy={policy['id']}")["items"][0]
    assert (found["status"], found["created_at"]) == ("suspended", "2020-01-01T00:00:00Z")
    assert found["expires_at"] == "2020-01-11T00:00:00Z"


@pytest.mark.parametrize(
    ("cells", "field"),
    [
        ({"key": "short"}, "key"),
        ({"key": ""}, "key"),
        ({"key": "a\x00" * 7}, "key"),
        ({"key": "\ud800" * 8}, "$"),
        ({"key_hash": "x"}, "key_hash"),
        ({"key_hash": "x" * 43, "key_hint": "abcd"}, "key"),
        ({"key": "", "key_hash": "x" * 43, "key_hint": "a\x00"}, "key_hint"),
        ({"policy": ""}, "policy"),
        ({"policy": "00000000-0000-7000-8000-000000000000"}, "policy"),
        ({"max_uses": "seven"}, "max_uses"),
        ({"max_uses": "9" * 5_000}, "max_uses"),
        ({"uses": "-1"}, "uses"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": '{"a":' * 3_000}, "metadata"),
        ({"entitlements": "[1]"}, "entitlements[0]"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"created_at": "2001-13-01T00:00:00Z"}, "created_at"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "created_at"),
        ({"created_at": "9999-01-01T00:00:00Z"}, "created_at"),
        ({"status": "gone"}, "status"),
        ({"colour": "red"}, "colour"),
        ({"email": "'; DROP TABLE licenses"}, "email"),
    ],
)
def test_a_bad_row_is_named_and_nothing_of_the_file_is_taken(admin: Admin, cells: Json, field: str) -> None:
    policy, (one, two, three) = admin.policy()["id"], keys(3)
    good = [{"policy": policy, "key": one}, {"policy": policy, "key": three}]
    error = refused(admin, [good[0], {"policy": policy, "key": two, **cells}, good[1]])
    assert (error.row, error.field) == (2, field)


@pytest.mark.parametrize("field", ["key", "external_ref"])
def test_a_row_like_an_earlier_one_or_like_a_license_is_named(admin: Admin, field: str) -> None:
    policy, (one, two, three) = admin.policy()["id"], keys(3)
    first = {"policy": policy, "key": one, "external_ref": uuid.uuid4().hex}
    second = {"policy": policy, "key": two, field: first[field]}
    error = refused(admin, [first, second])
    assert (error.row, error.field) == (2, field)
    assert admin.resources.import_licenses([first]) == 1
    error = refused(admin, [{"policy": policy, "key": three}, second])
    assert (error.row, error.field) == (2, field)


def test_rows_beyond_a_chunk_are_counted_right(admin: Admin) -> None:
    policy, many = admin.policy()["id"], keys(700)
    admin.license({"id": policy}, key=many[650])
    error = refused(admin, [{"policy": policy, "key": key} for key in many])
    assert (error.row, error.field) == (651, "key")


def test_an_import_that_would_hold_up_the_log_is_refused(admin: Admin) -> None:
    row = {"policy": admin.policy()["id"]}
    error = refused(admin, [{**row, "key": f"key-{i:08}"} for i in range(10_001)])
    assert (error.row, error.field) == (10_001, "$")


def test_every_bad_row_is_named(admin: Admin) -> None:
    policy, (good,) = admin.policy()["id"], keys(1)
    row = {"policy": policy, "key": good}
    error = refused(admin, [{**row, "email": "x"}, row, {**row, "uses": "x"}])
    assert [(fault.row, fault.field) for fault in (error, *error.others)] == [(1, "email"), (3, "uses")]


def test_whatever_is_wrong_with_the_rows_is_named_at_once(admin: Admin) -> None:
    policy, (one, two, three, held) = admin.policy()["id"], keys(4)
    admin.license({"id": policy}, key=held)
    bad = [
        {"policy": "no-such-policy", "key": one},
        {"policy": policy, "key": two, "email": "x"},
        {"policy": policy, "key": one},
        {"policy": policy, "key": held},
        {"policy": policy, "key": three},
    ]
    error = refused(admin, bad)
    found = [(fault.row, fault.field) for fault in (error, *error.others)]
    assert found == [(1, "policy"), (2, "email"), (3, "key"), (4, "key")]


def test_an_empty_import_takes_nothing_and_is_no_event(admin: Admin) -> None:
    before = len(events(admin))
    assert admin.resources.import_licenses([]) == 0
    assert len(events(admin)) == before


def test_an_export_can_be_imported_again(admin: Admin) -> None:
    policy = admin.policy(duration_days=30)
    license = admin.license(policy, name="=1+1", email="a@b.de", entitlements=["x"], metadata={"a": "b"}, max_uses=3)
    exported = [row for row in admin.resources.export_licenses() if row["policy"] == policy["id"]]
    assert [tuple(row) for row in exported] == [COLUMNS]
    assert license["key"] not in str(exported)
    admin.send("DELETE", f"/licenses/{license['id']}")
    cells = {name: guarded(cell) if isinstance(cell, str) else cell for name, cell in exported[0].items()}
    assert admin.resources.import_licenses([cells]) == 1
    assert [row for row in admin.resources.export_licenses() if row["policy"] == policy["id"]] == exported
    assert admin.node.call("validate", license["key"]).code == "VALID"


def test_an_export_has_every_license_once(admin: Admin) -> None:
    admin.resources.create_many({"policy": admin.policy()["id"]}, 1_100)
    hashes = [row["key_hash"] for row in admin.resources.export_licenses()]
    assert len(hashes) == len(set(hashes)) == count(admin)
