"""Products, policies and machines over HTTP, on both ledgers: made, read, changed, deleted, and logged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.ledger import tables
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
    """What an admin did last: a machine that another test left behind may be culled at any moment."""
    return [event for event in rows(admin.node.database, tables.events) if event["type"] != "machine.culled"][-1]


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
    made = admin.ok("POST", "/policies", {"product": admin.product()["code"], "name": "A policy"})
    assert {name: made[name] for name in made if name not in ("id", "product", "name", "created_at")} == {
        "duration_days": None,
        "expiry_basis": "creation",
        "expiry_strategy": "restrict",
        "grace_days": 0,
        "max_machines": 1,
        "floating": False,
        "require_fingerprint": True,
        "overage": "none",
        "machine_heartbeat_s": None,
        "cull": "deactivate",
        "check_in_days": None,
        "max_uses": None,
        "entitlements": [],
        "versions": None,
        "offline_ttl_s": 604800,
        "isolated_activation": True,
        "moves_per_30d": 5,
        "release_stale_days": None,
    }


@pytest.mark.parametrize(
    ("rules", "name", "value"),
    [
        ({"floating": True}, "max_machines", None),
        ({"floating": True}, "moves_per_30d", None),
        ({"floating": True, "max_machines": 5}, "moves_per_30d", 13),
        ({"max_machines": 5, "moves_per_30d": None}, "moves_per_30d", None),
        ({"max_machines": None}, "require_fingerprint", False),
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
    admin.ok("PATCH", f"/licenses/{license['id']}", {"name": "x"})
    created, event = rows(admin.node.database, tables.events, license_id=license["id"])
    assert (created["type"], event["type"]) == ("license.created", "license.updated")
    assert stamped(admin, tables.licenses, license["id"]) == event["seq"] > created["seq"]
    assert last_event(admin) == event
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
