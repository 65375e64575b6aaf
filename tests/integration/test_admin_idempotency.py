"""`Idempotency-Key`: every POST of an admin has one effect and gives its first answer again, and no key is stored."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from api.admin.actions import ACTIONS
from api.ledger import permitted_keys, tables
from api.ledger.database import Database
from api.signing import KeyStatus, generate
from tests.support.admin import Admin, Json, admin_on
from tests.support.nodes import ledger_of, rows, running_node
from tests.support.processes import until
from tests.vectors.keys import CHECKED

DAY = 86_400.0
_KEY = re.compile(r"[0-9A-HJKMNP-TV-Z]{7}(-[0-9A-HJKMNP-TV-Z]{7}){3}")
_OLD_KEY = re.compile(r"[0-9A-HJKMNP-TV-Z]{6}(-[0-9A-HJKMNP-TV-Z]{6}){4}")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Admin, Admin]]:
    """Two nodes of one ledger."""
    folder = tmp_path_factory.mktemp("nodes")
    with (
        ledger_of(request.param, request, folder) as url,
        running_node(url, folder / "one", NODE_ID="one") as one,
        running_node(url, folder / "two", NODE_ID="two") as two,
    ):
        yield Admin(one), Admin(two)


def new() -> str:
    return f"retry-{uuid.uuid4().hex}"


def product_call(admin: Admin) -> tuple[str, Json]:
    return "/products", {"code": f"p-{uuid.uuid4().hex[:12]}", "name": "A product"}


def policy_call(admin: Admin) -> tuple[str, Json]:
    return "/policies", {"product": admin.product()["code"], "name": "yearly"}


def license_call(admin: Admin) -> tuple[str, Json]:
    return "/licenses", {"policy": admin.policy()["id"], "metadata": {"b": 1, "a": 2}, "external_ref": new()}


def own_key_call(admin: Admin) -> tuple[str, Json]:
    return "/licenses", {"policy": admin.policy()["id"], "key": f"vendor {uuid.uuid4().hex}"}


def machine_call(admin: Admin) -> tuple[str, Json]:
    return "/machines", {"license": admin.license()["id"], "fingerprint": "machine-1", "name": "Office"}


def action_call(name: str) -> Callable[[Admin], tuple[str, Json]]:
    def call(admin: Admin) -> tuple[str, Json]:
        license = admin.license(admin.policy(duration_days=30))
        return f"/licenses/{license['id']}/actions/{name}", {"days": 3} if name == "renew" else {}

    return call


def batch_call(admin: Admin) -> tuple[str, Json]:
    return "/licenses", {"policy": admin.policy()["id"], "count": 3}


def import_call(admin: Admin) -> tuple[str, Json]:
    policy = admin.policy()["id"]
    return "/licenses/import", {"rows": [{"policy": policy, "key": f"vendor {uuid.uuid4().hex}"} for _ in range(2)]}


def token_call(admin: Admin) -> tuple[str, Json]:
    return "/tokens", {"name": "a colleague", "scopes": ["stats:read"]}


def key_call(admin: Admin) -> tuple[str, Json]:
    return "/keys", {"jwk": generate().public_jwk}


def activate_key_call(admin: Admin) -> tuple[str, Json]:
    """Of the key that signs already: the nodes hold no other."""
    return f"/keys/{admin.node.runtime.signer.kid}/actions/activate", {}


def retire_key_call(admin: Admin) -> tuple[str, Json]:
    path, body = key_call(admin)
    return f"/keys/{admin.ok('POST', path, body)['kid']}/actions/retire", {}


CALLS: dict[str, Callable[[Admin], tuple[str, Json]]] = {
    "products": product_call,
    "policies": policy_call,
    "licenses": license_call,
    "licenses with a key of one's own": own_key_call,
    "machines": machine_call,
    "a batch": batch_call,
    "an import": import_call,
    "tokens": token_call,
    "keys": key_call,
    "activate a key": activate_key_call,
    "retire a key": retire_key_call,
    **{name: action_call(name) for name in ACTIONS},
}
#: The routes of `CALLS` and of the test of nodes' actions, as the application names them.
_COVERED = {
    "/v1/products",
    "/v1/policies",
    "/v1/licenses",
    "/v1/machines",
    "/v1/licenses/import",
    "/v1/tokens",
    "/v1/keys",
    "/v1/keys/<id>/actions/activate",
    "/v1/keys/<id>/actions/retire",
    f"/v1/licenses/<id>/actions/<any({', '.join(map(repr, ACTIONS))}):action>",
    "/v1/nodes/actions/<any(switchover, promote):action>",
}


def ledger_of_effects(admin: Admin) -> list[Any]:
    """All that an admin's call may change."""
    copied = (tables.events, tables.products, tables.policies, tables.licenses, tables.machines, tables.failovers)
    return [rows(admin.node.database, table) for table in (*copied, tables.tokens, tables.signing_keys)]


def test_no_post_of_an_admin_is_forgotten(admin: Admin) -> None:
    routes = [rule for rule in admin.node.app.url_map.iter_rules() if "POST" in (rule.methods or ())]
    assert {rule.rule for rule in routes if rule.endpoint.startswith("admin.")} == _COVERED
    assert not [rule for rule in routes if not rule.endpoint.startswith(("admin.", "client."))]


def test_the_document_names_the_header_and_its_refusal_at_every_such_route(admin: Admin) -> None:
    document = json.loads(admin.node.http.get("/openapi.json").data)
    posts = [methods["post"] for path, methods in document["paths"].items() if "post" in methods]
    of_admins = [post for post in posts if post["security"] == [{"token": []}]]
    assert len(of_admins) == 4 + len(ACTIONS) + 2 + 5
    for post in of_admins:
        assert "Idempotency-Key" in [parameter["name"] for parameter in post["parameters"]]
        assert "IDEMPOTENCY_KEY_REUSED" in post["responses"]["422"]["description"]


@pytest.mark.parametrize("name", CALLS)
def test_a_retry_is_answered_alike_and_changes_nothing(admin: Admin, name: str) -> None:
    path, body = CALLS[name](admin)
    key = new()
    first = admin.send("POST", path, body, **{"Idempotency-Key": key})
    assert first.status_code in (200, 201), first.text
    before = ledger_of_effects(admin)
    retry = admin.send("POST", path, dict(reversed(body.items())), **{"Idempotency-Key": key})
    assert (retry.status_code, retry.json) == (first.status_code, first.json)
    assert ledger_of_effects(admin) == before


def test_a_call_without_the_header_has_its_effect_each_time(admin: Admin) -> None:
    path, body = CALLS["renew"](admin)
    assert admin.ok("POST", path, body)["expires_at"] < admin.ok("POST", path, body)["expires_at"]


def test_what_happened_since_does_not_change_the_first_answer(admin: Admin) -> None:
    license = admin.license()
    path, key = f"/licenses/{license['id']}/actions", new()
    first = admin.ok("POST", f"{path}/suspend", **{"Idempotency-Key": key})
    admin.ok("POST", f"{path}/reinstate")
    assert admin.ok("POST", f"{path}/suspend", {}, **{"Idempotency-Key": key}) == first
    assert admin.ok("GET", f"/licenses/{license['id']}")["status"] == "active"
    admin.send("DELETE", f"/licenses/{license['id']}")
    assert admin.ok("POST", f"{path}/suspend", **{"Idempotency-Key": key}) == first


def test_an_action_that_changed_nothing_stays_without_effect(admin: Admin) -> None:
    license = admin.license()
    path, key = f"/licenses/{license['id']}/actions", new()
    first = admin.ok("POST", f"{path}/reinstate", **{"Idempotency-Key": key})
    admin.ok("POST", f"{path}/suspend")
    assert admin.ok("POST", f"{path}/reinstate", **{"Idempotency-Key": key}) == first
    assert admin.ok("GET", f"/licenses/{license['id']}")["status"] == "suspended"


@pytest.mark.parametrize("name", ["licenses", "reissue"])
def test_the_license_key_of_the_first_answer_is_derived_again_and_works(admin: Admin, name: str) -> None:
    path, body = CALLS[name](admin)
    key = new()
    keys = [admin.ok("POST", path, body, **{"Idempotency-Key": key})["key"] for _ in range(3)]
    assert len(set(keys)) == 1
    assert _KEY.fullmatch(keys[0])
    assert admin.node.call("validate", keys[0]).code == "VALID"
    other = admin.ok("POST", path, body | ({"external_ref": new()} if name == "licenses" else {}))
    assert other["key"] not in keys


def test_a_record_of_the_first_release_gives_the_license_key_that_release_made(admin: Admin) -> None:
    """And one of this release names no signing key that the first one holds: it would derive another license key."""
    body, key = {"policy": admin.policy()["id"]}, new()
    answer = admin.ok("POST", "/licenses", body, **{"Idempotency-Key": key})
    (signing_key,) = admin.node.runtime.settings.signing_keys[:1]
    table = tables.idempotency_records
    mine = [row for row in rows(admin.node.database, table) if answer["id"] in row["answer_json"]]
    assert [row["kid"] for row in mine] == [signing_key.kid[:42]]
    with admin.node.database.writing() as connection:
        connection.execute(update(table).where(table.c.id == mine[0]["id"]).values(kid=signing_key.kid))
    again = admin.ok("POST", "/licenses", body, **{"Idempotency-Key": key})
    assert _OLD_KEY.fullmatch(again["key"])
    assert again["id"] == answer["id"]


def test_the_same_key_after_its_record_is_forgotten_gives_another_license(admin: Admin) -> None:
    body, key = {"policy": admin.policy()["id"]}, new()
    first = admin.ok("POST", "/licenses", body, **{"Idempotency-Key": key})
    with admin.node.database.writing() as connection:
        connection.execute(text("DELETE FROM idempotency_records"))
    second = admin.ok("POST", "/licenses", body, **{"Idempotency-Key": key})
    assert (first["id"] != second["id"], first["key"] != second["key"]) == (True, True)


# -- what is no retry -------------------------------------------------------------------------------------------------


def test_another_body_or_route_under_the_same_key_is_refused(admin: Admin) -> None:
    path, body = CALLS["renew"](admin)
    other_path, _ = CALLS["renew"](admin)
    key = {"Idempotency-Key": new()}
    admin.ok("POST", path, body, **key)
    before = ledger_of_effects(admin)
    for tried in (
        (path, {"days": 4}, key),
        (path, {}, key),
        (other_path, body, key),
        (path.replace("renew", "suspend"), {}, key),
        ("/products", {"code": "x", "name": "x"}, key),
    ):
        found = admin.problem("POST", tried[0], tried[1], **tried[2])
        assert (found["status"], found["code"]) == (422, "IDEMPOTENCY_KEY_REUSED"), tried
    assert ledger_of_effects(admin) == before


#: Of a license key's form: it would be kept as something else than a key.
KEY_FORM = "9QK4TD-PM07XW-2H5ZRA-V8N1CE-G3YJ6B"


def test_a_key_is_its_tokens_and_no_other_can_use_it_up(admin: Admin) -> None:
    other = Admin(admin.node, admin.resources.create_token("other", ["licenses:write", "licenses:read"])["token"])
    key, mine, theirs = {"Idempotency-Key": new()}, {"policy": admin.policy()["id"]}, {"code": new(), "name": "n"}
    other.ok("POST", "/products", theirs, **key)
    first = admin.ok("POST", "/licenses", mine, **key)
    assert admin.ok("POST", "/licenses", mine, **key) == first
    assert other.problem("POST", "/licenses", mine, **key)["code"] == "IDEMPOTENCY_KEY_REUSED"
    with_own = other.ok("POST", "/licenses", mine, **{"Idempotency-Key": new()})
    assert with_own["key"] != first["key"]


@pytest.mark.parametrize(
    "sent",
    [
        "",
        KEY_FORM,
        CHECKED,
        "short",
        "x" * 65,
        "with a space",
        "ümlaut-key",
        "semi;colon",
        "one-key-1,one-key-2",
    ],
)
def test_a_malformed_key_is_named_and_nothing_is_done(admin: Admin, sent: str) -> None:
    before = ledger_of_effects(admin)
    for path, body in (("/products", {"code": "never", "name": "n"}), ("/nodes/actions/promote", {"to": "n"})):
        found = admin.problem("POST", path, body, **{"Idempotency-Key": sent})
        assert (found["status"], found["code"], found["field"]) == (400, "MALFORMED", "Idempotency-Key")
        assert not sent or sent not in found["detail"]
    assert ledger_of_effects(admin) == before


def test_what_was_refused_may_be_sent_again_under_the_same_key(admin: Admin) -> None:
    policy, ref, key = admin.policy(), new(), {"Idempotency-Key": new()}
    holder = admin.license(policy, external_ref=ref)
    body = {"policy": policy["id"], "external_ref": ref}
    assert admin.problem("POST", "/licenses", body | {"max_uses": 0}, **key)["code"] == "MALFORMED"
    assert admin.problem("POST", "/licenses", body, **key)["code"] == "CONFLICT"
    admin.send("DELETE", f"/licenses/{holder['id']}")
    assert admin.ok("POST", "/licenses", body, **key) == admin.ok("POST", "/licenses", body, **key)


def test_changes_that_repeat_themselves_anyway_take_no_key(admin: Admin) -> None:
    license, key = admin.license(), {"Idempotency-Key": new()}
    assert admin.ok("PATCH", f"/licenses/{license['id']}", {"name": "a"}, **key)["name"] == "a"
    assert admin.ok("PATCH", f"/licenses/{license['id']}", {"name": "b"}, **key)["name"] == "b"


# -- nodes, races, rotation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_retry_on_another_node_meets_the_first_answer(two: tuple[Admin, Admin], name: str) -> None:
    one, other = two
    path, body = CALLS[name](one)
    key = {"Idempotency-Key": new()}
    first = one.ok("POST", path, body, **key)
    before = ledger_of_effects(one)
    assert other.ok("POST", path, body, **key) == first
    assert ledger_of_effects(one) == before


@pytest.mark.parametrize("name", CALLS)
def test_of_many_at_once_on_two_nodes_one_has_the_effect(two: tuple[Admin, Admin], name: str) -> None:
    path, body = CALLS[name](two[0])
    key, barrier = {"Idempotency-Key": new()}, threading.Barrier(4)
    before = len(rows(two[0].node.database, tables.events))

    def insist(admin: Admin) -> Json:
        """As a caller does who is told to come again."""
        barrier.wait(30)

        def answered() -> Any:
            response = admin.send("POST", path, body, **key)
            assert response.status_code in (200, 201, 503), response.text
            return None if response.status_code == 503 else response

        return dict(until(answered, "an answer", 60).json)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(insist, [*two, *two]))
    assert all(answer == answers[0] for answer in answers)
    effects = rows(two[0].node.database, tables.events)[before:]
    assert len(effects) == (0 if name in ("reinstate", "activate a key") else 1)
    if name == "renew":
        [row] = rows(two[0].node.database, tables.licenses, id=answers[0]["id"])
        assert row["expires_at"] == pytest.approx(row["created_at"] + 33 * DAY, abs=1)


def test_the_lease_is_handed_over_once(two: tuple[Admin, Admin]) -> None:
    one, other = two
    database = one.node.database
    holder = rows(database, tables.lease)[0]["node"]
    to, key = "two" if holder == "one" else "one", {"Idempotency-Key": new()}

    def handed() -> Any:
        response = one.send("POST", "/nodes/actions/switchover", {"to": to}, **key)
        return response.json if response.status_code == 200 else None

    first = until(handed, f"{to} can lead", 60)
    assert first in [json.loads(record["answer_json"]) for record in rows(database, tables.idempotency_records)]
    count = len([row for row in rows(database, tables.failovers) if row["kind"] == "switchover"])
    assert other.ok("POST", "/nodes/actions/switchover", {"to": to}, **key) == first
    assert len([row for row in rows(database, tables.failovers) if row["kind"] == "switchover"]) == count
    assert other.problem("POST", "/nodes/actions/promote", {"to": to}, **key)["code"] == "IDEMPOTENCY_KEY_REUSED"


def test_a_retry_after_another_signing_key_was_activated_gives_the_same_key_while_the_old_one_is_held(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    old, next = generate(), generate()
    both, key = old.pem() + next.pem(), {"Idempotency-Key": new()}
    with ledger_of("postgres", request, tmp_path) as url:
        with running_node(url, tmp_path / "one", SIGNING_KEY=both) as node:
            body = {"policy": Admin(node).policy()["id"]}
            first = Admin(node).ok("POST", "/licenses", body, **key)
        database = Database(url)
        with database.writing() as connection:
            permitted_keys.write(connection, old.kid, KeyStatus.PREVIOUS, 1.0)
            permitted_keys.write(connection, next.kid, KeyStatus.CURRENT, 1.0)
        database.close()
        with running_node(url, tmp_path / "two", SIGNING_KEY=both) as node:
            assert Admin(node).ok("POST", "/licenses", body, **key) == first
        with running_node(url, tmp_path / "three", SIGNING_KEY=next.pem()) as node:
            found = Admin(node).problem("POST", "/licenses", body, **key)
            assert (found["code"], found["license"]) == ("CONFLICT", {"id": first["id"]})
            assert len(rows(node.database, tables.licenses)) == 1


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_nothing_that_is_stored_holds_a_license_key_or_an_idempotency_key(
    two: tuple[Admin, Admin],
) -> None:
    one, other = two
    policy, sent = one.policy()["id"], new()
    made = one.ok("POST", "/licenses", {"policy": policy}, **{"Idempotency-Key": sent})
    own = one.ok("POST", "/licenses", {"policy": policy, "key": f"own-{new()}"}, **{"Idempotency-Key": new()})
    again = other.ok("POST", f"/licenses/{made['id']}/actions/reissue", **{"Idempotency-Key": new()})
    stored = repr([rows(one.node.database, table) for table in tables.metadata.sorted_tables])
    # The ledger's own file where it is SQLite's, the copies and the queues.
    folder = one.node.runtime.settings.data_dir.parent
    files = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    assert made["id"] in stored
    for secret in (made["key"], own["key"], again["key"], sent):
        assert secret not in stored
        assert secret.encode() not in files
