"""Licenses over HTTP, on both ledgers: made with their keys, inherited, changed, deleted, and never made twice."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.admin.licenses import conflicts
from api.ledger import tables
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.licensing import DAY
from api.problems import Problem
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows
from tests.vectors.generate import KEYS_FILE

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def test_a_new_license_shows_its_key_once_and_works(admin: Admin) -> None:
    made = admin.license(name="Ada", email="ada@example.org", metadata={"order": 7})
    key = made.pop("key")
    assert admin.node.call("validate", key).code == "VALID"
    read = admin.ok("GET", f"/licenses/{made['id']}")
    assert read == {**made, "last_seen_at": read["last_seen_at"]}
    assert read["last_seen_at"] is not None
    assert (made["key_hint"], made["status"], made["uses"], made["machines"]) == (key[-4:], "active", 0, 0)
    everything = [str(row) for table in tables.metadata.tables.values() for row in rows(admin.node.database, table)]
    assert not [row for row in everything if key in row]


def test_a_key_of_ones_own_is_taken_once(admin: Admin) -> None:
    policy = admin.policy()
    made = admin.license(policy, key="My Very Own Kéy")
    assert (made["key"], made["key_hint"]) == ("My Very Own Kéy", " Kéy")
    assert admin.node.call("validate", "My Very Own Kéy").code == "VALID"
    problem = admin.problem("POST", "/licenses", {"policy": policy["id"], "key": "My Very Own Kéy"})
    assert (problem["code"], "license" in problem) == ("CONFLICT", False)


def test_a_key_that_was_asked_for_before_it_existed_works_as_soon_as_it_does(admin: Admin) -> None:
    key = f"KEY-{uuid.uuid4()}"
    assert admin.node.call("validate", key).code == "NOT_FOUND"
    admin.license(key=key)
    assert admin.node.call("validate", key).code == "VALID"


def test_what_a_license_does_not_say_it_inherits(admin: Admin) -> None:
    policy = admin.policy(max_uses=5, entitlements=["pro"], floating=True, max_machines=3)
    license = admin.license(policy, max_uses=9)
    assert (license["max_uses"], license["entitlements"], license["max_machines"]) == (9, None, None)
    seen = admin.node.call("validate", license["key"]).body["license"]
    assert (seen["max_uses"], seen["entitlements"], seen["max_machines"]) == (9, ["pro"], 3)
    admin.ok("PATCH", f"/licenses/{license['id']}", {"max_uses": None, "entitlements": []})
    seen = admin.node.call("validate", license["key"]).body["license"]
    assert (seen["max_uses"], seen["entitlements"]) == (5, [])


@pytest.mark.parametrize(
    ("rules", "own", "expected"),
    [
        ({}, {}, None),
        ({"duration_days": 30}, {}, 30),
        ({"duration_days": 30}, {"expires_at": None}, 30),
        ({"duration_days": 30, "expiry_basis": "first_activation"}, {}, None),
        ({"duration_days": 30, "expiry_basis": "first_validation"}, {}, None),
    ],
)
def test_the_policy_says_when_a_new_license_expires(admin: Admin, rules: Json, own: Json, expected: int | None) -> None:
    license = admin.license(admin.policy(**rules), **own)
    stored = rows(admin.node.database, tables.licenses, id=license["id"])[0]
    after = None if stored["expires_at"] is None else stored["expires_at"] - stored["created_at"]
    assert after == (None if expected is None else expected * DAY)


def test_an_expiry_of_its_own_wins_and_clearing_it_inherits_again(admin: Admin) -> None:
    license = admin.license(admin.policy(duration_days=30), expires_at="2031-02-03T04:05:06+01:00")
    assert license["expires_at"] == "2031-02-03T03:05:06Z"
    cleared = admin.ok("PATCH", f"/licenses/{license['id']}", {"expires_at": None})
    stored = rows(admin.node.database, tables.licenses, id=license["id"])[0]
    assert stored["expires_at"] - stored["created_at"] == 30 * DAY
    assert cleared["expires_at"] < license["expires_at"]


def test_only_the_fields_that_are_sent_change(admin: Admin) -> None:
    license = admin.license(name="Ada", email="a@b.de", metadata={"a": 1}, external_ref=uuid.uuid4().hex)
    del license["key"]
    changed = admin.ok("PATCH", f"/licenses/{license['id']}", {"email": None, "metadata": None})
    assert changed == {**license, "email": None, "metadata": {}} == admin.ok("GET", f"/licenses/{license['id']}")
    assert admin.events(license)[-1]["data"] == {"fields": ["email", "metadata"]}


def test_a_license_can_move_to_another_policy(admin: Admin) -> None:
    license, other = admin.license(), admin.policy(entitlements=["pro"])
    moved = admin.ok("PATCH", f"/licenses/{license['id']}", {"policy": other["id"]})
    assert (moved["policy"], moved["product"]) == (other["id"], other["product"])
    assert admin.node.call("validate", license["key"], entitlements=["pro"]).code == "VALID"


def test_a_license_needs_a_policy_that_exists(admin: Admin) -> None:
    license = admin.license()
    for problem in (
        admin.problem("POST", "/licenses", {"policy": NOBODY}),
        admin.problem("PATCH", f"/licenses/{license['id']}", {"policy": NOBODY}),
        admin.problem("POST", "/licenses", {}),
    ):
        assert (problem["code"], problem["field"]) == ("MALFORMED", "policy")


def test_a_key_is_not_changed_by_a_patch(admin: Admin) -> None:
    license = admin.license()
    problem = admin.problem("PATCH", f"/licenses/{license['id']}", {"key": "12345678"})
    assert (problem["code"], problem["field"]) == ("MALFORMED", "key")


def test_a_reference_that_is_taken_is_answered_with_its_license(admin: Admin) -> None:
    ref, policy = uuid.uuid4().hex, admin.policy()
    first = admin.license(policy, external_ref=ref)
    del first["key"]
    problem = admin.problem("POST", "/licenses", {"policy": policy["id"], "external_ref": ref})
    assert (problem["code"], problem["license"]) == ("CONFLICT", first)
    second = admin.license(policy)
    problem = admin.problem("PATCH", f"/licenses/{second['id']}", {"external_ref": ref})
    assert (problem["code"], problem["license"]) == ("CONFLICT", first)
    assert admin.ok("PATCH", f"/licenses/{first['id']}", {"external_ref": ref}) == first


def test_a_webhook_that_is_sent_many_times_at_once_makes_one_license(admin: Admin) -> None:
    ref, policy = uuid.uuid4().hex, admin.policy()
    body = {"policy": policy["id"], "external_ref": ref}
    clients = [Admin(admin.node) for _ in range(8)]
    with ThreadPoolExecutor(len(clients)) as pool:
        responses = list(pool.map(lambda client: client.send("POST", "/licenses", body), clients))
    answers = [(response.status_code, json.loads(response.data)) for response in responses]
    answers.sort(key=lambda answer: answer[0])
    assert [status for status, _ in answers] == [201] + [409] * 7
    made = {name: value for name, value in answers[0][1].items() if name != "key"}
    assert [answer["license"] for _, answer in answers[1:]] == [made] * 7
    assert len(admin.events(made)) == 1


def test_a_deleted_license_is_gone_with_its_machines_and_its_events_stay(admin: Admin) -> None:
    license = admin.license()
    admin.node.call("activate", license["key"], fingerprint="here")
    assert admin.send("DELETE", f"/licenses/{license['id']}").status_code == 204
    assert admin.problem("GET", f"/licenses/{license['id']}")["code"] == "RESOURCE_NOT_FOUND"
    assert admin.node.call("validate", license["key"]).code == "NOT_FOUND"
    assert rows(admin.node.database, tables.machines, license_id=license["id"]) == []
    types = [event["type"] for event in admin.events(license)]
    assert types == ["license.created", "activate", "license.deleted"]


@pytest.mark.parametrize("key", [None, "a-key-that-nobody-has"])
@pytest.mark.parametrize("external_ref", [None, "a-ref-that-nobody-has"])
def test_a_refusal_that_is_no_conflict_stays_what_it_is(
    admin: Admin, key: str | None, external_ref: str | None
) -> None:
    admin.license()  # it has no external_ref, which must not match a missing one
    runtime = admin.node.runtime
    journal = Journal(runtime.ledger.database, runtime.node, runtime.clock)
    with pytest.raises(LedgerRefused), conflicts(journal, key, external_ref):
        raise LedgerRefused("a fault of another kind")


def test_a_license_is_in_no_conflict_with_itself(admin: Admin) -> None:
    license, other = (admin.license(external_ref=uuid.uuid4().hex) for _ in range(2))
    runtime = admin.node.runtime
    journal = Journal(runtime.ledger.database, runtime.node, runtime.clock)
    with pytest.raises(LedgerRefused), conflicts(journal, license["key"], license["external_ref"], own=license["id"]):
        raise LedgerRefused("a fault of another kind")
    with (
        pytest.raises(Problem, match="another license's"),
        conflicts(journal, None, license["external_ref"], own=other["id"]),
    ):
        raise LedgerRefused("a second one")


def test_a_key_in_use_and_a_reference_in_use_are_told_apart(admin: Admin) -> None:
    key, ref = f"own-{uuid.uuid4()}", str(uuid.uuid4())
    policy = admin.policy()
    made = admin.license(policy, key=key, external_ref=ref)
    same_key = admin.problem("POST", "/licenses", {"policy": policy["id"], "key": key})
    assert (same_key["code"], same_key["detail"]) == ("CONFLICT", "the key is in use")
    same_ref = admin.problem("POST", "/licenses", {"policy": policy["id"], "external_ref": ref})
    assert (same_ref["code"], same_ref["license"]["id"]) == ("CONFLICT", made["id"])


PAIRS = json.loads(KEYS_FILE.read_text(encoding="ascii"))["pairs"]


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if len(pair["key"]) >= 8], ids=lambda pair: pair["name"])
def test_a_pasted_key_is_taken_in_its_one_form(admin: Admin, pair: Json) -> None:
    made = admin.license(key=pair["text"])
    assert made["key"] == pair["key"]
    assert admin.node.call("validate", pair["key"]).code == "VALID"
    again = admin.problem("POST", f"/licenses/{admin.license()['id']}/actions/reissue", {"key": pair["text"]})
    assert again["code"] == "CONFLICT"
    admin.send("DELETE", f"/licenses/{made['id']}")


def test_a_key_of_which_nothing_is_left_is_malformed(admin: Admin) -> None:
    refused = admin.problem(
        "POST", "/licenses", {"policy": admin.policy()["id"], "key": "  \u200b\u00a0\u201c\u201d  "}
    )
    assert (refused["code"], refused["field"]) == ("MALFORMED", "key")
