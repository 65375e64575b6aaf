"""Lists: filters, pages, and cursors that hold while rows are added."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.admin import Admin, Json, admin_on


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


PLURALS = ["products", "policies", "licenses", "machines", "events"]


def ids(page: Json) -> list[str]:
    return [item["id"] for item in page["items"]]


def test_pages_show_every_license_once_while_others_are_added_and_deleted(admin: Admin) -> None:
    policy = admin.policy()
    mine = [admin.license(policy)["id"] for _ in range(9)]
    seen: list[str] = []
    path = f"/licenses?policy={policy['id']}&limit=4"
    page = admin.ok("GET", path)
    while True:
        assert len(page["items"]) <= 4
        seen += ids(page)
        if page["next"] is None:
            break
        admin.license(policy)
        admin.send("DELETE", f"/licenses/{seen[-1]}")  # the very row that the cursor stands on
        page = admin.ok("GET", f"{path}&cursor={page['next']}")
    assert seen == mine[::-1]


def test_a_full_last_page_says_that_it_is_the_last(admin: Admin) -> None:
    policy = admin.policy()
    for _ in range(2):
        admin.license(policy)
    page = admin.ok("GET", f"/licenses?policy={policy['id']}&limit=2")
    assert (len(page["items"]), page["next"]) == (2, None)


def test_a_page_has_fifty_items_unless_told_otherwise(admin: Admin) -> None:
    policy = admin.policy()
    admin.resources.create_many({"policy": policy["id"]}, 101)
    page = admin.ok("GET", f"/licenses?policy={policy['id']}")
    assert (len(page["items"]), page["next"] is None) == (50, False)
    assert len(admin.ok("GET", f"/licenses?policy={policy['id']}&limit=100")["items"]) == 100


@pytest.mark.parametrize("plural", PLURALS)
@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", "", "٣", "9" * 400, "1e1", "%00"])
def test_a_bad_limit_is_refused(admin: Admin, plural: str, limit: str) -> None:
    problem = admin.problem("GET", f"/{plural}?limit={limit}")
    assert (problem["code"], problem["field"]) == ("MALFORMED", "limit")


@pytest.mark.parametrize("plural", PLURALS)
@pytest.mark.parametrize("cursor", ["", "made-up", "%00", "' OR 1=1", "a" * 3000, "WyJldmVudHMiLC0xXQ", "bnVsbA"])
def test_a_made_up_cursor_is_refused(admin: Admin, plural: str, cursor: str) -> None:
    problem = admin.problem("GET", f"/{plural}?cursor={cursor}")
    assert (problem["code"], problem["field"]) == ("MALFORMED", "cursor")


def test_a_cursor_of_another_list_is_refused(admin: Admin) -> None:
    policy = admin.policy()
    for _ in range(2):
        admin.license(policy)
    cursor = admin.ok("GET", "/licenses?limit=1")["next"]
    assert admin.problem("GET", f"/policies?cursor={cursor}")["field"] == "cursor"


@pytest.mark.parametrize("plural", PLURALS)
def test_an_unknown_or_repeated_parameter_is_named(admin: Admin, plural: str) -> None:
    problem = admin.problem("GET", f"/{plural}?colour=red")
    assert (problem["code"], problem["field"]) == ("MALFORMED", "colour")
    problem = admin.problem("GET", f"/{plural}?limit=1&limit=2")
    assert (problem["code"], problem["field"]) == ("MALFORMED", "limit")


def test_calls_that_are_no_lists_take_no_parameters(admin: Admin) -> None:
    license = admin.license()
    for method, path, body in (
        ("GET", f"/licenses/{license['id']}?x=1", None),
        ("PATCH", f"/licenses/{license['id']}?x=1", {}),
        ("DELETE", f"/licenses/{license['id']}?x=1", None),
        ("POST", f"/licenses/{license['id']}/actions/ban?x=1", None),
        ("POST", "/licenses?x=1", {"policy": license["policy"]}),
        ("GET", "/nodes?x=1", None),
    ):
        problem = admin.problem(method, path, body)
        assert (problem["code"], problem["field"]) == ("MALFORMED", "x")
    assert admin.ok("GET", f"/licenses/{license['id']}")["status"] == "active"


def test_each_filter_of_licenses_finds_what_it_should(admin: Admin) -> None:
    policy, mark = admin.policy(), uuid.uuid4().hex
    one = admin.license(
        policy, name="Ada", email=f"{mark}@Example.org", external_ref=f"order-{mark}", key=f"{mark}-%a_z"
    )
    admin.license(policy, name="Bob")
    for query in (
        f"email={mark}@example.ORG",
        f"external_ref=order-{mark}",
        f"policy={policy['id']}&q=ADA",
        f"product={policy['product']}&q=ada",
        f"policy={policy['id']}&key_hint=%25a_z",
        f"q={mark.upper()}",
        f"policy={policy['id']}&q=%25A_Z",
        f"policy={policy['id']}&status=active&q=example",
    ):
        assert ids(admin.ok("GET", f"/licenses?{query}")) == [one["id"]], query


@pytest.mark.parametrize("wild", ["%25", "_", "%25%25", "\\", "*", "/"])
def test_wildcards_mean_themselves(admin: Admin, wild: str) -> None:
    policy = admin.policy()
    admin.license(policy, name="Ada", key=f"plain-{uuid.uuid4()}")
    assert admin.ok("GET", f"/licenses?policy={policy['id']}&q={wild}")["items"] == []


def test_the_status_filter_knows_expired_ones_too(admin: Admin) -> None:
    policy = admin.policy()
    expired = admin.license(policy, expires_at="2001-01-01T00:00:00Z")["id"]
    suspended = admin.license(policy)["id"]
    admin.ok("POST", f"/licenses/{suspended}/actions/suspend")
    active = admin.license(policy)["id"]
    found = {
        status: ids(admin.ok("GET", f"/licenses?policy={policy['id']}&status={status}"))
        for status in ("active", "suspended", "banned", "expired")
    }
    assert found == {"active": [active, expired], "suspended": [suspended], "banned": [], "expired": [expired]}
    assert admin.problem("GET", "/licenses?status=gone")["field"] == "status"


def test_filters_of_the_other_lists(admin: Admin) -> None:
    policy = admin.policy(name="Gold")
    license = admin.license(policy)
    body = {"license": license["id"], "fingerprint": uuid.uuid4().hex, "name": "Desk"}
    machine = admin.ok("POST", "/machines", body)["id"]
    product = admin.ok("GET", f"/products?product={policy['product']}")
    assert [item["code"] for item in product["items"]] == [policy["product"]]
    assert ids(admin.ok("GET", f"/policies?product={policy['product']}&q=gold")) == [policy["id"]]
    for query in (f"license={license['id']}", f"fingerprint={body['fingerprint']}", f"product={policy['product']}"):
        assert ids(admin.ok("GET", f"/machines?{query}")) == [machine]


@pytest.mark.parametrize("plural", PLURALS)
def test_no_text_in_a_filter_is_more_than_text(admin: Admin, plural: str) -> None:
    name = "type" if plural == "events" else "product" if plural != "machines" else "fingerprint"
    for text in ("'; DROP TABLE licenses; --", "%25s", ":x", "%E4%BD%A0", "%F0%9F%98%80", "%FF%FE", "%ED%A0%80"):
        assert admin.ok("GET", f"/{plural}?{name}={text}")["items"] == []
    for text in ("", "%00", "a%0A", "x" * 321):
        problem = admin.problem("GET", f"/{plural}?{name}={text}")
        assert (problem["code"], problem["field"]) == ("MALFORMED", name)
