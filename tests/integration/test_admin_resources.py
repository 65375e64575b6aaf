"""Products, policies, licenses and machines over HTTP, on both ledgers: made, read, changed, deleted, and logged."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.ledger import tables
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.licensing import DAY
from api.resources.licenses import conflicts
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


NOBODY = "00000000-0000-7000-8000-000000000000"


def stamped(admin: Admin, table: Any, id: str) -> int:
    """The log position that a row carries."""
    return int(rows(admin.node.database, table, id=id)[0]["seq"])


def last_event(admin: Admin) -> Json:
    return rows(admin.node.database, tables.events)[-1]


# -- products -------------------------------------------------------------------------------------------------------


def test_a_product_is_made_read_changed_and_deleted(admin: Admin) -> None:
    made = admin.ok("POST", "/products", {"code": "first", "name": "First"})
    assert made.keys() == {"id", "code", "name", "created_at"}
    changed = admin.ok("PATCH", f"/products/{made['id']}", {"name": "1st"})
    assert changed == {**made, "name": "1st"} == admin.ok("GET", f"/products/{made['id']}")
    assert admin.send("DELETE", f"/products/{made['id']}").status_code == 204
    assert admin.problem("GET", f"/products/{made['id']}")["code"] == "RESOURCE_NOT_FOUND"


def test_a_code_is_one_products_only(admin: Admin) -> None:
    one, two = admin.product(), admin.product()
    assert admin.problem("POST", "/products", {"code": one["code"], "name": "x"})["code"] == "CONFLICT"
    assert admin.problem("PATCH", f"/products/{two['id']}", {"code": one["code"]})["code"] == "CONFLICT"
    assert admin.ok("GET", f"/products/{two['id']}") == two


def test_a_product_with_policies_keeps_its_code_and_stays(admin: Admin) -> None:
    product = admin.product()
    admin.policy(product=product["code"])
    assert admin.problem("DELETE", f"/products/{product['id']}")["code"] == "CONFLICT"
    assert admin.problem("PATCH", f"/products/{product['id']}", {"code": "another"})["code"] == "CONFLICT"


# -- policies -------------------------------------------------------------------------------------------------------


def test_a_policy_of_only_a_name_has_the_contracts_defaults(admin: Admin) -> None:
    made = admin.policy()
    assert {name: made[name] for name in made if name not in ("id", "product", "name", "created_at")} == {
        "duration_days": None,
        "expiry_basis": "creation",
        "expiry_strategy": "restrict",
        "grace_days": 0,
        "max_machines": 1,
        "floating": False,
        "require_fingerprint": False,
        "overage": "none",
        "machine_heartbeat_s": None,
        "cull": "deactivate",
        "check_in_days": None,
        "max_uses": None,
        "entitlements": [],
        "versions": None,
        "offline_ttl_s": 604800,
        "isolated_activation": True,
        "moves_per_30d": None,
        "release_stale_days": None,
    }


@pytest.mark.parametrize(
    ("rules", "name", "value"),
    [
        ({"floating": True}, "max_machines", None),
        ({"floating": True, "max_machines": 5}, "max_machines", 5),
        ({"max_machines": None}, "max_machines", None),
        ({"offline_ttl_s": None}, "offline_ttl_s", None),
        ({"entitlements": ["pro", "beta"]}, "entitlements", ["pro", "beta"]),
    ],
)
def test_what_is_said_of_a_rule_is_what_holds(admin: Admin, rules: Json, name: str, value: Any) -> None:
    made = admin.policy(**rules)
    assert made[name] == value
    assert admin.ok("GET", f"/policies/{made['id']}") == made


def test_changing_a_rule_leaves_the_others(admin: Admin) -> None:
    made = admin.policy(duration_days=30, max_uses=5, entitlements=["pro"])
    changed = admin.ok("PATCH", f"/policies/{made['id']}", {"max_uses": None, "name": "New"})
    assert changed == {**made, "max_uses": None, "name": "New"} == admin.ok("GET", f"/policies/{made['id']}")


def test_a_changed_rule_holds_for_the_licenses_at_once(admin: Admin) -> None:
    policy = admin.policy(max_uses=1)
    license = admin.license(policy)
    assert admin.node.call("usage", license["key"]).code == "VALID"
    assert admin.node.call("usage", license["key"]).code == "USES_EXHAUSTED"
    admin.ok("PATCH", f"/policies/{policy['id']}", {"max_uses": 2})
    assert admin.node.call("usage", license["key"]).code == "VALID"


def test_a_policy_needs_a_product_that_exists(admin: Admin) -> None:
    policy = admin.policy()
    for problem in (
        admin.problem("POST", "/policies", {"product": "nobodys", "name": "x"}),
        admin.problem("PATCH", f"/policies/{policy['id']}", {"product": "nobodys"}),
    ):
        assert (problem["code"], problem["field"]) == ("MALFORMED", "product")


def test_a_policy_with_licenses_stays_until_they_are_gone(admin: Admin) -> None:
    policy = admin.policy()
    license = admin.license(policy)
    assert admin.problem("DELETE", f"/policies/{policy['id']}")["code"] == "CONFLICT"
    admin.send("DELETE", f"/licenses/{license['id']}")
    assert admin.send("DELETE", f"/policies/{policy['id']}").status_code == 204


# -- licenses -------------------------------------------------------------------------------------------------------


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


def test_a_key_in_use_and_a_reference_in_use_are_told_apart(admin: Admin) -> None:
    key, ref = f"own-{uuid.uuid4()}", str(uuid.uuid4())
    policy = admin.policy()
    made = admin.license(policy, key=key, external_ref=ref)
    same_key = admin.problem("POST", "/licenses", {"policy": policy["id"], "key": key})
    assert (same_key["code"], same_key["detail"]) == ("CONFLICT", "the key is in use")
    same_ref = admin.problem("POST", "/licenses", {"policy": policy["id"], "external_ref": ref})
    assert (same_ref["code"], same_ref["license"]["id"]) == ("CONFLICT", made["id"])


# -- machines -------------------------------------------------------------------------------------------------------


def test_a_machine_that_an_admin_adds_is_the_one_its_customer_activates(admin: Admin) -> None:
    license = admin.license(admin.policy(max_machines=1))
    made = admin.ok("POST", "/machines", {"license": license["id"], "fingerprint": "here", "name": "Desk"})
    assert (made["license"], made["fingerprint"], made["name"], made["alive"]) == (license["id"], "here", "Desk", True)
    answer = admin.node.call("activate", license["key"], fingerprint="here")
    assert (answer.code, answer.body["machine"]["id"]) == ("VALID", made["id"])
    again = admin.problem("POST", "/machines", {"license": license["id"], "fingerprint": "here"})
    assert again["code"] == "CONFLICT"


def test_an_admin_adds_no_machine_that_a_customer_could_not(admin: Admin) -> None:
    license = admin.license(admin.policy(max_machines=1))
    body = {"license": license["id"], "fingerprint": "one"}
    admin.ok("POST", "/machines", body)
    problem = admin.problem("POST", "/machines", {**body, "fingerprint": "two"})
    assert (problem["code"], problem["verdict"]) == ("CONFLICT", "MACHINE_LIMIT_EXCEEDED")
    admin.ok("POST", f"/licenses/{license['id']}/actions/suspend")
    problem = admin.problem("POST", "/machines", {**body, "fingerprint": "two"})
    assert (problem["code"], problem["verdict"]) == ("CONFLICT", "SUSPENDED")
    assert admin.ok("GET", f"/licenses/{license['id']}")["machines"] == 1
    problem = admin.problem("POST", "/machines", {"license": NOBODY, "fingerprint": "x"})
    assert (problem["code"], problem["field"]) == ("MALFORMED", "license")


def test_deleting_a_machine_frees_its_seat(admin: Admin) -> None:
    license = admin.license(admin.policy(max_machines=1))
    machine = admin.node.call("activate", license["key"], fingerprint="old").body["machine"]
    assert admin.node.call("activate", license["key"], fingerprint="new").code == "MACHINE_LIMIT_EXCEEDED"
    assert admin.send("DELETE", f"/machines/{machine['id']}").status_code == 204
    assert admin.send("DELETE", f"/machines/{machine['id']}").status_code == 404
    assert admin.problem("GET", f"/machines/{machine['id']}")["code"] == "RESOURCE_NOT_FOUND"
    stored = rows(admin.node.database, tables.licenses, id=license["id"])[0]
    assert (stored["seats"], stored["excess"]) == (0, 0)
    event = last_event(admin)
    assert (event["type"], event["machine_id"], event["seq"]) == ("machine.deleted", machine["id"], stored["seq"])
    assert admin.node.call("activate", license["key"], fingerprint="new").code == "VALID"


def test_a_machine_can_be_described_anew_and_nothing_else(admin: Admin) -> None:
    license = admin.license()
    made = admin.ok("POST", "/machines", {"license": license["id"], "fingerprint": "here", "platform": "Windows"})
    changed = admin.ok("PATCH", f"/machines/{made['id']}", {"name": "Desk", "platform": None})
    assert changed == {**made, "name": "Desk", "platform": None} == admin.ok("GET", f"/machines/{made['id']}")
    for name in ("fingerprint", "license"):
        problem = admin.problem("PATCH", f"/machines/{made['id']}", {name: "other"})
        assert (problem["code"], problem["field"]) == ("MALFORMED", name)


def test_a_machine_is_alive_while_its_heartbeat_is_in_time(admin: Admin) -> None:
    license = admin.license(admin.policy(machine_heartbeat_s=600))
    machine = admin.node.call("activate", license["key"], fingerprint="here").body["machine"]["id"]
    assert admin.ok("GET", f"/machines/{machine}")["alive"] is False
    admin.node.call("ping", license["key"], fingerprint="here")
    assert admin.ok("GET", f"/machines/{machine}")["alive"] is True
    with admin.node.database.writing() as connection:
        table = tables.machines
        connection.execute(table.update().where(table.c.id == machine).values(heartbeat_at=time.time() - 700))
    assert admin.ok("GET", f"/machines/{machine}")["alive"] is False


def test_seats_stay_counted_while_admins_and_customers_change_machines_at_once(admin: Admin) -> None:
    license = admin.license(admin.policy(floating=True, max_machines=5))
    clients = [Admin(admin.node) for _ in range(6)]

    def work(i: int) -> None:
        client = clients[i]
        if i % 2:
            client.send("POST", "/machines", {"license": license["id"], "fingerprint": f"m{i}"})
        else:
            client.node.call("activate", license["key"], fingerprint=f"m{i}")
        for machine in client.ok("GET", f"/machines?license={license['id']}")["items"][:1]:
            client.send("DELETE", f"/machines/{machine['id']}")

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(work, range(len(clients))))
    active = rows(admin.node.database, tables.machines, license_id=license["id"], active=True)
    assert rows(admin.node.database, tables.licenses, id=license["id"])[0]["seats"] == len(active)


# -- the log --------------------------------------------------------------------------------------------------------


def test_every_change_is_one_event_and_the_row_carries_its_position(admin: Admin) -> None:
    product, policy = admin.product(), None
    assert stamped(admin, tables.products, product["id"]) == last_event(admin)["seq"]
    policy = admin.policy(product=product["code"])
    assert stamped(admin, tables.policies, policy["id"]) == last_event(admin)["seq"]
    license = admin.license(policy)
    assert stamped(admin, tables.licenses, license["id"]) == last_event(admin)["seq"]
    before = last_event(admin)["seq"]
    admin.ok("PATCH", f"/licenses/{license['id']}", {"name": "x"})
    event = last_event(admin)
    assert (event["seq"], event["type"], event["license_id"]) == (before + 1, "license.updated", license["id"])
    assert stamped(admin, tables.licenses, license["id"]) == before + 1
    node = admin.node.runtime.node
    assert (event["node"], event["instance"], event["epoch"], event["mode"]) == (node.id, node.instance, 1, "normal")
    assert abs(event["recorded_at"] - event["occurred_at"]) < 5


def test_a_change_that_changes_nothing_is_no_event(admin: Admin) -> None:
    license = admin.license()
    before = last_event(admin)["seq"]
    assert admin.ok("PATCH", f"/licenses/{license['id']}", {})["id"] == license["id"]
    admin.ok("POST", f"/licenses/{license['id']}/actions/reinstate")
    assert last_event(admin)["seq"] == before


@pytest.mark.parametrize("plural", ["products", "policies", "licenses", "machines"])
@pytest.mark.parametrize("id", [NOBODY, "x", "'; DROP TABLE licenses; --", "%00", "a%0Ab", "%ED%A0%80", "x" * 5000])
def test_what_is_not_there_is_said_so(admin: Admin, plural: str, id: str) -> None:
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        assert admin.problem(method, f"/{plural}/{id}", body)["code"] == "RESOURCE_NOT_FOUND"
