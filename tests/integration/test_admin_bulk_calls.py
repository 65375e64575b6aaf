"""Licenses by the hundred over HTTP: batches, imports and exports, each of them once however often it is sent."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterator

import pytest

from api.admin.bulk import COLUMNS
from api.admin.licenses import COLUMNS as LICENSE_COLUMNS
from api.ledger import tables
from api.ledger.records import Finding
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def once() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def key() -> str:
    return f"key-{uuid.uuid4()}"


def count(admin: Admin) -> int:
    return len(rows(admin.node.database, tables.licenses))


def csv_of(admin: Admin, path: str) -> list[dict[str, str]]:
    response = admin.send("GET", path, Accept="text/csv")
    assert (response.status_code, response.content_type) == (200, "text/csv; charset=utf-8"), response.text
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


# -- count ------------------------------------------------------------------------------------------------------------


def test_a_batch_is_made_once_and_its_keys_are_shown_again_to_a_retry(admin: Admin) -> None:
    body, same, before = {"policy": admin.policy()["id"], "name": "Team", "count": 5}, once(), count(admin)
    response = admin.send("POST", "/licenses", body, **same)
    assert (response.status_code, response.headers["Location"]) == (201, "/v1/licenses")
    made = response.get_json()["items"]
    assert len({license["key"] for license in made}) == len({license["id"] for license in made}) == 5
    assert admin.ok("POST", "/licenses", body, **same)["items"] == made
    assert count(admin) == before + 5
    assert admin.node.call("validate", made[4]["key"]).code == "VALID"
    assert admin.problem("POST", "/licenses", {**body, "count": 4}, **same)["code"] == "IDEMPOTENCY_KEY_REUSED"
    kept = [str(row) for table in tables.metadata.tables.values() for row in rows(admin.node.database, table)]
    assert not [row for row in kept if any(license["key"] in row for license in made)]


def test_a_batch_of_one_is_a_list_too_and_a_writer_sees_ids_and_keys_only(admin: Admin) -> None:
    policy = admin.policy()["id"]
    writer = Admin(admin.node, admin.resources.create_token("writer", ["licenses:write"])["token"])
    made = writer.ok("POST", "/licenses", {"policy": policy, "count": 1})
    assert [license.keys() for license in made["items"]] == [{"id", "key"}]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"count": 0}, "count"),
        ({"count": 501}, "count"),
        ({"count": "5"}, "count"),
        ({"count": 2, "key": "12345678"}, "key"),
        ({"count": 2, "external_ref": "x"}, "external_ref"),
        ({"count": 2, "policy": "none"}, "policy"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named(admin: Admin, fields: Json, field: str) -> None:
    assert admin.problem("POST", "/licenses", {"policy": admin.policy()["id"], **fields})["field"] == field


def test_a_license_is_not_changed_into_several(admin: Admin) -> None:
    assert admin.problem("PATCH", f"/licenses/{admin.license()['id']}", {"count": 2})["field"] == "count"


# -- import -----------------------------------------------------------------------------------------------------------


def test_an_import_is_taken_once_and_a_check_says_what_it_would_be_answered(admin: Admin) -> None:
    policy, keys, same = admin.policy()["id"], [key(), key()], once()
    body = {"rows": [{"policy": policy, "key": keys[0], "max_uses": "7"}, {"policy": policy, "key": keys[1]}]}
    before = count(admin)
    assert admin.ok("POST", "/licenses/import", {**body, "check": True}, **same) == {"rows": 2, "imported": False}
    assert count(admin) == before
    for _ in range(2):
        assert admin.ok("POST", "/licenses/import", body, **same) == {"rows": 2, "imported": True}
    assert count(admin) == before + 2
    assert admin.ok("POST", "/licenses/import", {**body, "check": True}, **same)["rows"] == 2
    assert admin.problem("POST", "/licenses/import", {**body, "check": True})["code"] == "MALFORMED"
    assert admin.node.call("validate", keys[0]).body["license"]["max_uses"] == 7


def test_every_bad_row_is_named_and_none_is_taken(admin: Admin) -> None:
    policy, taken, before = admin.policy()["id"], key(), count(admin)
    rows = [
        {"policy": policy, "key": taken},
        {"policy": policy, "key": key(), "email": "x"},
        {"policy": policy, "key": taken},
        {"policy": "none", "key": key()},
        {"policy": policy, "key": key(), "colour": "red"},
    ]
    for check in (True, False):
        found = admin.problem("POST", "/licenses/import", {"rows": rows, "check": check})
        assert (found["code"], found["field"]) == ("MALFORMED", "rows")
        assert [(row["row"], row["field"]) for row in found["rows"]] == [
            (2, "email"), (3, "key"), (4, "policy"), (5, "colour"),
        ]  # fmt: skip
    assert count(admin) == before


@pytest.mark.parametrize("body", [{}, {"rows": []}, {"rows": [1]}, {"rows": [{}] * 1_001}, {"rows": [{}], "more": 1}])
def test_what_is_no_import_is_refused(admin: Admin, body: Json) -> None:
    assert admin.problem("POST", "/licenses/import", body)["code"] == "MALFORMED"


# -- export -----------------------------------------------------------------------------------------------------------


def test_an_export_is_csv_or_a_line_of_json_for_each_license(admin: Admin) -> None:
    policy = admin.policy()
    license = admin.license(policy, name="=1+1", entitlements=["x"], metadata={"a": "b"})
    (shown,) = [row for row in csv_of(admin, "/licenses/export") if row["policy"] == policy["id"]]
    assert tuple(shown) == tuple(name for name in COLUMNS if name != "key_hash")
    assert (shown["name"], shown["entitlements"]) == ("'=1+1", '["x"]')
    response = admin.send("GET", "/licenses/export?hashes=true", Accept="application/x-ndjson")
    assert response.content_type == "application/x-ndjson"
    exported = [json.loads(line) for line in response.text.splitlines()]
    assert len(exported) == count(admin)
    (row,) = [row for row in exported if row["policy"] == policy["id"]]
    assert tuple(row) == COLUMNS
    assert (row["name"], row["metadata"]) == ("=1+1", {"a": "b"})
    admin.send("DELETE", f"/licenses/{license['id']}")
    assert admin.ok("POST", "/licenses/import", {"rows": [row]})["imported"]
    assert admin.node.call("validate", license["key"]).code == "VALID"


def test_hashes_are_for_those_who_may_write(admin: Admin) -> None:
    reader = Admin(admin.node, admin.resources.create_token("reader", ["licenses:read"])["token"])
    assert reader.send("GET", "/licenses/export").status_code == 200
    assert reader.send("GET", "/licenses/export?hashes=false").status_code == 200
    assert reader.problem("GET", "/licenses/export?hashes=true")["scope"] == "licenses:write"
    assert admin.problem("GET", "/licenses/export?hashes=maybe")["field"] == "hashes"
    assert admin.problem("GET", "/licenses/export?limit=3")["field"] == "limit"


def test_a_list_of_licenses_is_csv_where_that_is_asked_for(admin: Admin) -> None:
    policy = admin.policy()
    made = [admin.license(policy, name=name)["id"] for name in ("+1", "two", "three")]
    shown = csv_of(admin, f"/licenses?policy={policy['id']}")
    assert [row["id"] for row in shown] == made[::-1]
    assert tuple(shown[0]) == LICENSE_COLUMNS
    assert shown[2]["name"] == "'+1"
    assert [row["id"] for row in csv_of(admin, f"/licenses?policy={policy['id']}&limit=1")] == made[:1:-1]
    for query, field in (("colour=red", "colour"), ("cursor=x", "cursor"), ("limit=0", "limit")):
        assert admin.problem("GET", f"/licenses?{query}", Accept="text/csv")["field"] == field
    assert "items" in admin.ok("GET", "/licenses", Accept="application/json, text/csv")


def test_a_license_is_found_by_the_hash_of_its_key(admin: Admin) -> None:
    license = admin.license()
    hash = admin.resources.export_licenses
    (row,) = [row for row in hash() if row["policy"] == license["policy"]]
    found = admin.ok("GET", f"/licenses?key_hash={row['key_hash']}")["items"]
    assert [one["id"] for one in found] == [license["id"]]


# -- the log and what replay found ------------------------------------------------------------------------------------


def test_the_log_is_read_from_any_place_on(admin: Admin) -> None:
    for _ in range(3):
        admin.product()
    last = admin.ok("GET", "/events?after=-2")["items"]
    assert [event["type"] for event in last] == ["product.created"] * 2
    assert admin.ok("GET", f"/events?after={last[0]['seq']}")["items"] == last[1:]
    assert admin.ok("GET", f"/events?after={last[1]['seq']}") == {"items": [], "next": None}
    assert len(csv_of(admin, "/events?after=-2")) == 2
    page = admin.ok("GET", "/events?after=-3&limit=2")
    assert admin.ok("GET", f"/events?after=-3&limit=2&cursor={page['next']}")["items"][-1] == last[1]
    for wrong in ("", "x", "1.5", "--1", "9" * 30):
        assert admin.problem("GET", f"/events?after={wrong}")["field"] == "after"


def test_findings_are_listed_by_event(admin: Admin) -> None:
    mark = f"node-{uuid.uuid4().hex[:8]}"
    ids = sorted((str(uuid.uuid4()) for _ in range(3)), reverse=True)
    found = [Finding(id, kind, None, mark, 1e9, {"code": "X"}) for id in ids for kind in ("dead", "seats")]
    with admin.node.database.writing() as connection:
        for one in found:
            row = {"event_id": one.event_id, "kind": one.kind, "node": mark, "found_at": 1e9, "data": '{"code":"X"}'}
            connection.execute(tables.replay_findings.insert(), row)
    seen: list[Json] = []
    page = admin.ok("GET", f"/findings?node={mark}&limit=2")
    seen += page["items"]
    page = admin.ok("GET", f"/findings?node={mark}&limit=2&cursor={page['next']}")
    seen += page["items"]
    assert page["next"] is None
    assert [(one["event_id"], one["kind"]) for one in seen] == [(one.event_id, one.kind) for one in found]
    assert (seen[0]["data"], seen[0]["found_at"]) == ({"code": "X"}, "2001-09-09T01:46:40Z")
    assert len(admin.ok("GET", f"/findings?node={mark}&kind=dead")["items"]) == 3
    assert admin.problem("GET", "/findings?colour=red")["field"] == "colour"
    assert admin.problem("GET", "/findings?cursor=x")["field"] == "cursor"
