"""Searching and naming: by key, hint, e-mail address and name, alike on SQLite and Postgres, whoever wrote the row."""

from __future__ import annotations

import json
import time
import unicodedata
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from sqlalchemy import delete, insert, text, update

from api.admin.kinds import Kind
from api.ledger import migrate, search_index, tables
from api.problems import Problem
from api.signing import key_claim
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows
from tests.vectors.generate import KEYS_FILE
from tests.vectors.keys import CHECKED, IMPORTED, OURS

PAIRS = json.loads(KEYS_FILE.read_text(encoding="ascii"))["pairs"]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def found(admin: Admin, policy: Json, **filters: str) -> list[str]:
    """The names of the licenses under `policy` that a list with `filters` shows."""
    query = "&".join(f"{name}={quote(value)}" for name, value in filters.items())
    return [item["name"] for item in admin.ok("GET", f"/licenses?policy={policy['id']}&{query}")["items"]]


def written_by_another_release(admin: Admin, policy: Json, **columns: object) -> str:
    """The id of a license that somebody wrote who knows no index."""
    row = {"id": str(uuid.uuid4()), "policy": policy["id"], "key_hash": key_claim(str(uuid.uuid4())),
           "key_hint": "9ZzZ", "status": "active", "created_at": time.time(), **columns}  # fmt: skip
    with admin.node.database.writing() as connection:
        connection.execute(insert(tables.licenses), row)
    return str(row["id"])


def test_a_whole_key_finds_its_license_however_it_was_pasted(admin: Admin) -> None:
    policy = admin.policy()
    for key in (OURS, CHECKED, IMPORTED):
        admin.license(policy, name=key, key=f" \u200b{key}\u00a0\r\n")
    for pair in PAIRS:
        if pair["key"] in (OURS, CHECKED, IMPORTED) and "\0" not in pair["text"]:
            assert found(admin, policy, q=pair["text"]) == [pair["key"]], pair["name"]
    assert found(admin, policy, find=f"\ufeff{CHECKED.lower()}\r\n") == [CHECKED]
    assert found(admin, policy, q=CHECKED[:-1] + "F") == []


def test_reissue_and_import_bring_a_pasted_key_to_its_one_form(admin: Admin) -> None:
    license, new = admin.license(), f"NEW-{uuid.uuid4()}"
    again = admin.ok("POST", f"/licenses/{license['id']}/actions/reissue", {"key": f"\u201c{new}\u201d\u200b \n"})
    assert again["key"] == new
    imported = f"IMP-{uuid.uuid4()}"
    admin.resources.import_licenses([{"policy": license["policy"], "key": f"{imported}\u00a0 "}])
    assert [admin.node.call("validate", key).code for key in (new, imported)] == ["VALID", "VALID"]


def test_names_and_addresses_are_found_without_regard_to_case_and_accents(admin: Admin) -> None:
    policy, decomposed = admin.policy(), unicodedata.normalize("NFD", "José Silva")
    admin.license(policy, name="José Silva", email="Jose.Silva@Example.org", external_ref=f"order-7-{uuid.uuid4()}")
    admin.license(policy, name=decomposed, email="josé.silva@example.org", external_ref=f"order-7-{uuid.uuid4()}")
    admin.license(policy, name="Josefine", email="j@elsewhere.net")
    both = [decomposed, "José Silva"]
    names = ("JOSÉ SILVA", "José silv", "jose\u0301 silva", "SILVA@")
    others = ("josé.silva@", "EXAMPLE.org", "order-7", "7-")
    for searched in names + others:
        assert found(admin, policy, q=searched) == both, searched
    assert found(admin, policy, q="jose") == ["Josefine", *both]
    assert found(admin, policy, email="JOSE.SILVA@example.org") == both
    assert found(admin, policy, q="silva nobody") == []


def test_what_another_release_wrote_is_found_at_once_and_after_it_was_filled(admin: Admin) -> None:
    policy, mark = admin.policy(), uuid.uuid4().hex
    id = written_by_another_release(admin, policy, name="Zoë", email=f"{mark}@Example.org")
    mine = admin.license(policy, name="Before")
    with admin.node.database.writing() as connection:
        connection.execute(update(tables.licenses).where(tables.licenses.c.id == mine["id"]).values(name="Chloé"))
    for _ in range(2):
        assert found(admin, policy, q="ZOE") == found(admin, policy, email=f"{mark}@EXAMPLE.ORG") == ["Zoë"]
        assert found(admin, policy, find="zoe") == found(admin, policy, q="9zZz") == ["Zoë"]
        assert (found(admin, policy, q="before"), found(admin, policy, q="chloe")) == ([], ["Chloé"])
        migrate.fill_search_index(admin.node.database, 60.0)
    entry = rows(admin.node.database, tables.license_search, license_id=id)[0]
    assert (entry["name"], entry["email"], entry["words"] is None) == ("zoe", f"{mark}@example.org", False)
    admin.send("DELETE", f"/licenses/{id}")
    assert rows(admin.node.database, tables.license_search, license_id=id) == []


def test_licenses_from_before_there_was_an_index_are_filled_in_steps(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, database = admin.policy(), admin.node.database
    admin.resources.create_many({"policy": policy["id"], "name": "Ölmühle"}, 25)
    with database.writing() as connection:
        connection.execute(delete(tables.license_search))
        connection.execute(delete(tables.duty_marks).where(tables.duty_marks.c.name == search_index._COMPLETE))
    monkeypatch.setattr(search_index, "_CHUNK", 10)
    filling, steps = search_index.Filling(), 1
    with database.writing() as connection:
        while filling(connection):
            steps += 1
    assert steps >= 3
    assert len(found(admin, policy, q="olmuhle")) == 25
    assert len(rows(database, tables.license_search)) == len(rows(database, tables.licenses))


def test_a_text_in_a_quotation_is_no_more_than_a_text(admin: Admin) -> None:
    policy = admin.policy()
    admin.license(policy, name="O'Brien \\ & Sons | !x:*", email="o'b'c@x.org")
    for searched in ("O'BRIEN", "o'b'c@x", "\\", "&", "brien", "!x:*", "|"):
        assert found(admin, policy, q=searched) == ["O'Brien \\ & Sons | !x:*"], searched
    for searched in ("'", "o'b'd", "x:*'", ":*", "\x07", "'' | 'a'", "a\\"):
        assert found(admin, policy, q=searched) == [], searched


def test_many_matches_are_shown_newest_first(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = admin.policy()
    made = admin.resources.create_many({"policy": policy["id"], "name": "Crowd"}, 60)
    expected = sorted((one["id"] for one in made), reverse=True)
    for few, page_size in ((10_000, 101), (5, 50), (5, 101)):  # by their ids, by walking, as an array
        monkeypatch.setattr(search_index, "_FEW", few)
        monkeypatch.setattr(search_index, "_PAGE", page_size)
        page = admin.ok("GET", f"/licenses?policy={policy['id']}&q=crowd&limit=40")
        rest = admin.ok("GET", f"/licenses?policy={policy['id']}&q=crowd&limit=40&cursor={page['next']}")
        assert [one["id"] for one in page["items"] + rest["items"]] == expected


def test_one_is_named_by_all_that_is_its_own_and_an_ambiguous_name_lists_the_candidates(admin: Admin) -> None:
    policy, mark = admin.policy(name="Größe L"), uuid.uuid4().hex[:12]
    one = admin.license(policy, name=f"Ann {mark}", email=f"ann-{mark}@x.org", external_ref=f"r-{mark}")
    for name in (one["id"], one["key"].lower(), f"ANN-{mark}@X.org", f"r-{mark}", f"ÁNN {mark}"):
        assert admin.resources.named(Kind.LICENSE, name)["id"] == one["id"], name
    assert one["id"] in [each["id"] for each in admin.ok("GET", f"/licenses?find={one['key_hint'].lower()}")["items"]]
    two = admin.license(policy, name=f"ann {mark}")
    with pytest.raises(Problem, match="several licenses") as refused:
        admin.resources.named(Kind.LICENSE, f"ann {mark}")
    assert refused.value.members["candidates"] == [{"id": two["id"]}, {"id": one["id"]}]
    with pytest.raises(Problem, match="no such license"):
        admin.resources.named(Kind.LICENSE, "ann")  # the beginning of a name names nobody
    with pytest.raises(Problem, match="looks mistyped") as refused:
        admin.resources.named(Kind.LICENSE, CHECKED[:-1] + "F")
    assert CHECKED[:-1] not in refused.value.detail
    for name in (policy["id"], "GRÖSSE L", f"{policy['product']}/größe l"):
        assert admin.resources.named(Kind.POLICY, name)["id"] == policy["id"], name
    with pytest.raises(Problem, match="no such policy"):
        admin.resources.named(Kind.POLICY, policy["product"])
    assert admin.resources.named(Kind.PRODUCT, policy["product"].upper())["code"] == policy["product"]


def test_a_license_says_what_it_has_from_its_policy(admin: Admin) -> None:
    policy = admin.policy(name="Trio", max_machines=3, entitlements=["pro"])
    license = admin.license(policy, max_uses=5)
    assert license["policy_name"] == "Trio"
    assert license["inherited"] == {"max_machines": 3, "entitlements": ["pro"]}
    changed = admin.ok("PATCH", f"/licenses/{license['id']}", {"max_machines": 4, "max_uses": None})
    assert changed["inherited"] == {"max_uses": None, "entitlements": ["pro"]}


def test_a_license_edited_by_hand_under_another_search_path_is_still_written(admin: Admin) -> None:
    if admin.node.database.is_sqlite:
        return
    license = admin.license()
    with admin.node.database.writing() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        connection.exec_driver_sql("SET LOCAL search_path TO pg_catalog")
        connection.execute(
            text(f'UPDATE "{schema}".licenses SET name = :name WHERE id = :id'), {"name": "Ed", "id": license["id"]}
        )
    assert rows(admin.node.database, tables.license_search, license_id=license["id"])[0]["words"] is None
