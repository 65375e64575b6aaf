"""What admins do to a license: suspend, reinstate, ban, renew, reissue, check-in, on both ledgers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.admin.actions import ACTIONS
from api.ledger import tables
from api.licensing import DAY
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


def act(admin: Admin, license: Json, action: str, body: Any = None) -> Json:
    return admin.ok("POST", f"/licenses/{license['id']}/actions/{action}", body)


def refused(admin: Admin, license: Json, action: str, body: Any = None) -> Json:
    return admin.problem("POST", f"/licenses/{license['id']}/actions/{action}", body)


def stored(admin: Admin, license: Json) -> Json:
    return rows(admin.node.database, tables.licenses, id=license["id"])[0]


def set_expiry(admin: Admin, license: Json, expires_at: float) -> None:
    table = tables.licenses
    with admin.node.database.writing() as connection:
        connection.execute(table.update().where(table.c.id == license["id"]).values(expires_at=expires_at))


def test_a_suspended_license_is_denied_until_it_is_reinstated(admin: Admin) -> None:
    license = admin.license()
    assert act(admin, license, "suspend")["status"] == "suspended"
    assert admin.node.call("validate", license["key"]).code == "SUSPENDED"
    assert act(admin, license, "reinstate", {})["status"] == "active"
    assert admin.node.call("validate", license["key"]).code == "VALID"
    types = [event["type"] for event in admin.events(license)]
    assert types == ["license.created", "license.suspended", "validate", "license.reinstated", "validate"]


def test_suspending_twice_is_one_event(admin: Admin) -> None:
    license = admin.license()
    act(admin, license, "suspend")
    assert act(admin, license, "suspend")["status"] == "suspended"
    assert len(admin.events(license)) == 2


def test_a_ban_is_final(admin: Admin) -> None:
    license = admin.license()
    assert act(admin, license, "ban")["status"] == "banned"
    assert admin.node.call("validate", license["key"]).code == "BANNED"
    for action in ACTIONS.keys() - {"ban"}:
        assert refused(admin, license, action)["code"] == "CONFLICT"
    assert admin.ok("GET", f"/licenses/{license['id']}")["status"] == "banned"


def test_banning_twice_is_one_event(admin: Admin) -> None:
    license = admin.license()
    act(admin, license, "ban")
    assert act(admin, license, "ban")["status"] == "banned"
    assert [event["type"] for event in admin.events(license)] == ["license.created", "license.banned"]


def test_personal_data_of_a_banned_license_can_be_erased(admin: Admin) -> None:
    license = admin.license(name="Ada", email="ada@example.com")
    act(admin, license, "ban")
    changed = admin.ok("PATCH", f"/licenses/{license['id']}", {"name": None, "email": None})
    assert (changed["status"], changed["name"], changed["email"]) == ("banned", None, None)
    assert admin.node.call("validate", license["key"]).code == "BANNED"
    assert admin.send("DELETE", f"/licenses/{license['id']}").status_code == 204
    assert admin.problem("GET", f"/licenses/{license['id']}")["code"] == "RESOURCE_NOT_FOUND"


def test_renewing_early_adds_to_what_is_left(admin: Admin) -> None:
    license = admin.license(admin.policy(duration_days=30))
    before = stored(admin, license)["expires_at"]
    renewed = act(admin, license, "renew")
    assert stored(admin, license)["expires_at"] == before + 30 * DAY
    assert renewed["expires_at"] > license["expires_at"]


def test_renewing_late_begins_now_and_the_license_is_valid_again(admin: Admin) -> None:
    license = admin.license(admin.policy(duration_days=30))
    set_expiry(admin, license, admin.node.now() - 100 * DAY)
    assert admin.node.call("validate", license["key"]).code == "EXPIRED"
    act(admin, license, "renew", {"days": 7})
    assert abs(stored(admin, license)["expires_at"] - admin.node.now() - 7 * DAY) < 60
    assert admin.node.call("validate", license["key"]).code == "VALID"


@pytest.mark.parametrize("rules", [{}, {"duration_days": 30, "expiry_basis": "first_activation"}])
@pytest.mark.parametrize("body", [None, {"days": 7}])
def test_what_does_not_run_out_cannot_be_renewed(admin: Admin, rules: Json, body: Json | None) -> None:
    license = admin.license(admin.policy(**rules))
    assert refused(admin, license, "renew", body)["code"] == "CONFLICT"
    assert stored(admin, license)["expires_at"] is None


def test_renewing_an_expiry_of_its_own_under_a_perpetual_policy_needs_days(admin: Admin) -> None:
    license = admin.license(expires_at="2031-01-01T00:00:00Z")
    problem = refused(admin, license, "renew")
    assert (problem["code"], problem["field"]) == ("MALFORMED", "days")
    assert act(admin, license, "renew", {"days": 1})["expires_at"] == "2031-01-02T00:00:00Z"


def test_nothing_is_renewed_beyond_the_calendar(admin: Admin) -> None:
    license = admin.license(expires_at="9999-12-31T23:59:59Z")
    problem = refused(admin, license, "renew", {"days": 1})
    assert (problem["code"], problem["field"]) == ("MALFORMED", "days")
    assert admin.node.call("validate", license["key"]).code == "VALID"


def test_a_reissued_key_is_shown_once_and_the_old_one_stops_at_once(admin: Admin) -> None:
    license = admin.license()
    admin.node.call("activate", license["key"], fingerprint="here")
    reissued = act(admin, license, "reissue")
    assert reissued["key"] != license["key"]
    assert reissued["key_hint"] == reissued["key"][-4:]
    assert admin.node.call("validate", license["key"]).code == "NOT_FOUND"
    assert admin.node.call("validate", reissued["key"], fingerprint="here").code == "VALID"
    assert "key" not in admin.ok("GET", f"/licenses/{license['id']}")
    assert reissued["key"] not in str(admin.events(license))


def test_a_key_of_ones_own_may_be_reissued_unless_it_is_in_use(admin: Admin) -> None:
    license, other = admin.license(), admin.license()
    key = f"own-{uuid.uuid4()}"
    assert act(admin, license, "reissue", {"key": key})["key"] == key
    assert refused(admin, other, "reissue", {"key": key})["code"] == "CONFLICT"
    assert admin.node.call("validate", other["key"]).code == "VALID"


def test_a_check_in_by_the_admin_resets_the_clock(admin: Admin) -> None:
    license = admin.license(admin.policy(check_in_days=7))
    table = tables.licenses
    with admin.node.database.writing() as connection:
        connection.execute(table.update().where(table.c.id == license["id"]).values(created_at=0.0))
    assert admin.node.call("validate", license["key"]).code == "OVERDUE"
    act(admin, license, "check-in")
    assert admin.node.call("validate", license["key"]).code == "VALID"


@pytest.mark.parametrize("action", [action for action in ACTIONS if action not in ("renew", "reissue")])
def test_an_action_that_takes_nothing_refuses_what_it_is_sent(admin: Admin, action: str) -> None:
    license = admin.license()
    problem = refused(admin, license, action, {"days": 1})
    assert (problem["code"], problem["field"]) == ("MALFORMED", "days")


@pytest.mark.parametrize("days", [0, -1, 36_501, 1.5, "7", 10**30, True])
def test_days_out_of_range_are_refused(admin: Admin, days: Any) -> None:
    problem = refused(admin, admin.license(), "renew", {"days": days})
    assert (problem["code"], problem["field"]) == ("MALFORMED", "days")


def test_an_action_that_does_not_exist_is_no_route(admin: Admin) -> None:
    license = admin.license()
    assert refused(admin, license, "explode")["code"] == "ROUTE_NOT_FOUND"
    response = admin.send("GET", f"/licenses/{license['id']}/actions/ban")
    assert (response.status_code, {*response.headers["Allow"].split(", ")}) == (405, {"OPTIONS", "POST"})


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_on_nothing_is_not_found(admin: Admin, action: str) -> None:
    assert refused(admin, {"id": str(uuid.uuid4())}, action)["code"] == "RESOURCE_NOT_FOUND"
    assert refused(admin, {"id": "%00"}, action)["code"] == "RESOURCE_NOT_FOUND"
