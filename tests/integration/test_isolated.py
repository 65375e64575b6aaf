"""A node whose ledger is away: it answers what it knows, queues it, and brings it to the ledger afterwards."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sqlalchemy import select

from api.ledger import tables
from api.signing import key_claim
from tests.support.admin import Admin
from tests.support.nodes import ADMIN_TOKEN, Answer, Node, rows, running_node, starting_node
from tests.support.postgres import PostgresServer
from tests.support.processes import until

#: How long a node waits for its ledger in these tests; what it is by default.
_BUDGET = {"LEDGER_BUDGET": "0.5"}
#: The slowest answer: the budget, a connection that does not come about, and the rest for noisy machines.
_ANSWERED_WITHIN_S = 0.5 + 2 + 4


@pytest.fixture
def node(url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(url, tmp_path / "a", **_BUDGET) as node:
        yield node


@pytest.fixture
def admin(node: Node) -> Admin:
    return Admin(node)


def copied(admin: Admin, **rules: Any) -> dict[str, Any]:
    """A license that the node's snapshot has."""
    license = admin.license(policy=admin.policy(**rules))
    until(lambda: admin.node.runtime.reader.has_key(key_claim(license["key"])), "a copy of the license")
    return license


def caught_up(node: Node) -> None:
    """Waits until the snapshot is where the log is."""

    def at_the_head() -> bool:
        with node.database.reading() as connection:
            head = connection.scalar(select(tables.log_head.c.seq))
        position = node.runtime.reader.usable(node.runtime.clock.now())
        return position is not None and position.seq == head

    until(at_the_head, "a snapshot at the log's head")


def gone(server: PostgresServer, node: Node, key: str) -> None:
    """Stops the ledger, and asks until the node has noticed."""
    caught_up(node)
    server.stop()
    until(lambda: node.call("validate", key).body.get("durability") == "queue", "an answer without the ledger")


def back(server: PostgresServer, node: Node) -> None:
    """Starts the ledger, and waits until the node has gone back to it."""
    server.start()
    state = node.runtime.state
    until(lambda: state.breaker.isolated_since is None, "the node is back at its ledger", 60)


def drained(server: PostgresServer, node: Node) -> None:
    """The same, and its queue is empty."""
    back(server, node)
    until(lambda: not node.runtime.state.breaker.may_hold_queued, "an empty queue", 60)


def stats_of(node: Node) -> dict[str, Any]:
    response = node.http.get("/stats", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    assert response.status_code == 200, response.text
    return dict(response.json)  # type: ignore[arg-type]


def _synced(sync: dict[str, Any]) -> bool:
    return sync["pending"] == 0 and sync["total"] == sync["synced"] > 0


def license_row(node: Node, license: dict[str, Any]) -> dict[str, Any]:
    return rows(node.database, tables.licenses, id=license["id"])[0]


# -- going away and coming back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["stop", "kill", "freeze"])
def test_a_ledger_that_goes_away_costs_no_answer_and_gets_every_event_once(
    server: PostgresServer, node: Node, admin: Admin, mode: str
) -> None:
    license = copied(admin)
    caught_up(node)
    end, slowest = threading.Event(), [0.0]

    def keep_calling(number: int) -> list[Answer]:
        told = []
        while not end.is_set():
            began = time.monotonic()
            told.append(
                node.call(("validate", "usage")[number % 2], license["key"], request_id=f"call-{number}-{len(told)}")
            )
            slowest[0] = max(slowest[0], time.monotonic() - began)
            time.sleep(0.01)
        return told

    with ThreadPoolExecutor(6) as pool:
        try:
            callers = [pool.submit(keep_calling, number) for number in range(6)]
            {"stop": server.stop, "kill": server.kill, "freeze": server.freeze}[mode]()
            until(lambda: node.runtime.state.breaker.isolated_since is not None, "the node has noticed")
            until(lambda: node.http.get("/readyz").json["ledger"] == "unreachable", "it says so")  # type: ignore[index]
            assert node.http.get("/readyz").status_code == 200
            assert node.call("validate", license["key"]).body["durability"] == "queue"
            server.thaw()
            back(server, node)
        finally:
            end.set()
        told = [one for caller in callers for one in caller.result()]
    assert {(one.status, one.code) for one in told} == {(200, "VALID")}
    assert "queue" in {one.body["durability"] for one in told}
    assert slowest[0] < _ANSWERED_WITHIN_S
    drained(server, node)
    assert node.call("validate", license["key"]).body["durability"] == "ledger"
    events = rows(node.database, tables.events, license_id=license["id"])
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    assert {str(one.claims["jti"]) for one in told if one.claims} <= set(ids)
    uses = Counter(event["type"] for event in events)["usage"]
    assert license_row(node, license)["uses"] == uses
    queued = [event for event in events if event["mode"] == "isolated"]
    assert queued
    assert all(event["origin"] for event in queued)
    assert [event["origin_seq"] for event in queued] == sorted(event["origin_seq"] for event in queued)


def test_the_queue_is_open_before_anybody_needs_it(node: Node) -> None:
    isolated = node.runtime.recorder._isolated
    assert isolated is not None
    until(lambda: isolated._queue is not None, "an open queue")


def test_replayed_checks_leave_when_they_saw_a_license_and_are_no_news_for_any_snapshot(
    server: PostgresServer, node: Node, admin: Admin
) -> None:
    license = copied(admin, max_machines=3)
    assert node.call("activate", license["key"], fingerprint="pc").code == "VALID"
    before = license_row(node, license)["seq"]
    gone(server, node, license["key"])
    assert node.call("validate", license["key"], fingerprint="pc").body["durability"] == "queue"
    drained(server, node)
    after, machine = license_row(node, license), rows(node.database, tables.machines, license_id=license["id"])[0]
    assert after["last_seen_at"] is not None
    assert machine["last_seen_at"] is not None
    assert (after["seq"], machine["seq"]) == (before, before)


def test_what_changes_nothing_does_not_wait_for_another_worker_that_decides(
    server: PostgresServer, node: Node, admin: Admin
) -> None:
    key = copied(admin, max_uses=5)["key"]
    gone(server, node, key)
    with FileLock(f"{node.runtime.settings.queue_path}.lane.lock"):  # as the other worker has it
        assert node.call("validate", key).body["durability"] == "queue"
        assert node.call("usage", key).code == "LEDGER_UNAVAILABLE"
    assert node.call("usage", key).code == "VALID"


# -- what is said without the ledger ----------------------------------------------------------------------------------


def test_only_what_is_certain_is_denied_without_the_ledger(server: PostgresServer, node: Node, admin: Admin) -> None:
    good = copied(admin, max_machines=1)
    suspended, expired = copied(admin), copied(admin)
    admin.ok("POST", f"/licenses/{suspended['id']}/actions/suspend")
    admin.ok("PATCH", f"/licenses/{expired['id']}", {"expires_at": "2020-01-01T00:00:00Z"})
    assert node.call("activate", good["key"], fingerprint="pc").code == "VALID"
    gone(server, node, good["key"])
    certain = {
        "VALID": node.call("validate", good["key"], fingerprint="pc"),
        "SUSPENDED": node.call("validate", suspended["key"]),
        "EXPIRED": node.call("validate", expired["key"]),
        "PRODUCT_SCOPE_MISMATCH": node.call("validate", good["key"], product="another"),
    }
    assert {code: (answer.status, answer.code) for code, answer in certain.items()} == {
        code: (200, code) for code in certain
    }
    assert {answer.body["durability"] for answer in certain.values()} == {"queue"}
    for answer in (
        node.call("validate", "nobody-has-this-key"),
        node.call("activate", good["key"], fingerprint="another"),
        node.call("validate", good["key"], fingerprint="another"),
    ):
        assert (answer.status, answer.code) == (503, "LEDGER_UNAVAILABLE")
        assert answer.response.headers["Retry-After"]


def test_without_the_ledger_40_at_once_get_no_seat_that_one_would_not_and_an_admin_writes_nothing(
    server: PostgresServer, node: Node, admin: Admin
) -> None:
    license = copied(admin, max_machines=1)
    assert node.call("activate", license["key"], fingerprint="pc").code == "VALID"
    gone(server, node, license["key"])
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(node.call, "activate", license["key"], fingerprint=f"pc-{i}") for i in range(40)]
        told = {(each.result().status, each.result().code) for each in asked}
    assert told <= {(503, "LEDGER_UNAVAILABLE"), (503, "OVERLOADED")}
    for path, body in (("/products", {"code": "new", "name": "New"}), (f"/licenses/{license['id']}/actions/ban", None)):
        assert admin.problem("POST", path, body)["code"] == "LEDGER_UNAVAILABLE"
    assert node.call("validate", license["key"], fingerprint="pc").code == "VALID"


def test_a_policy_may_keep_a_node_from_giving_seats_on_its_own(
    server: PostgresServer, node: Node, admin: Admin
) -> None:
    strict, free = copied(admin, isolated_activation=False), copied(admin)
    gone(server, node, free["key"])
    assert node.call("activate", strict["key"], fingerprint="pc").status == 503
    assert node.call("activate", free["key"], fingerprint="pc").code == "VALID"
    assert node.call("validate", free["key"], fingerprint="pc").code == "VALID"
    assert node.call("deactivate", free["key"], fingerprint="pc").code == "VALID"
    drained(server, node)
    assert license_row(node, free)["seats"] == 0
    [machine] = rows(node.database, tables.machines, license_id=free["id"])
    assert (machine["active"], machine["excess"]) == (False, False)


def test_a_retry_meets_the_first_outcome_in_the_queue_and_after_it(
    server: PostgresServer, node: Node, admin: Admin
) -> None:
    license = copied(admin)
    gone(server, node, license["key"])
    first = node.call("usage", license["key"], request_id="request-1", increment=3)
    again = node.call("usage", license["key"], request_id="request-1", increment=3)
    assert (first.body["license"]["uses"], again.body["license"]["uses"]) == (3, 3)
    assert node.call("usage", license["key"], request_id="request-1", increment=4).code == "REQUEST_ID_REUSED"
    drained(server, node)
    later = node.call("usage", license["key"], request_id="request-1", increment=3)
    assert (later.code, later.body["license"]["uses"], later.body["durability"]) == ("VALID", 3, "ledger")
    assert license_row(node, license)["uses"] == 3


def test_what_this_node_just_answered_is_known_though_the_ledger_goes_at_once(
    server: PostgresServer, node: Node, admin: Admin
) -> None:
    license = copied(admin)
    caught_up(node)
    assert node.call("activate", license["key"], fingerprint="pc").body["durability"] == "ledger"
    server.kill()
    until(lambda: node.call("validate", license["key"], fingerprint="pc").body.get("durability") == "queue", "queued")
    assert node.call("validate", license["key"], fingerprint="pc").code == "VALID"


def test_a_copy_that_is_too_old_answers_nothing(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with running_node(url, tmp_path, ISOLATED_MAX_AGE="2", **_BUDGET) as node:
        license = copied(Admin(node))
        gone(server, node, license["key"])
        until(lambda: node.call("validate", license["key"]).status == 503, "an end to it")
        assert node.http.get("/readyz").status_code == 503


# -- starting without it ----------------------------------------------------------------------------------------------


def test_a_node_starts_without_its_ledger_from_its_own_copy(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        admin = Admin(node)
        license = copied(admin)
        reader = admin.resources.create_token("reader", ["stats:read"])["token"]
        caught_up(node)
    server.stop()
    with starting_node(url, tmp_path, **_BUDGET) as node:
        node.runtime.settle()
        assert node.runtime.recorder._isolated._queue is not None, "open before the first call"  # type: ignore[union-attr]
        until(lambda: node.http.get("/readyz").status_code == 200, "a node that is ready without its ledger", 60)
        answer = node.call("validate", license["key"])
        assert (answer.code, answer.body["durability"]) == ("VALID", "queue")
        until(lambda: stats_of(node)["node"]["role"] == "isolated", "its role")
        stats = node.http.get("/stats", headers={"Authorization": f"Bearer {reader}"})
        assert stats.status_code == 200
        until(lambda: stats_of(node)["sync"]["queue"]["pending"] >= 1, "the queued check on /stats")
        found = stats_of(node)
        assert (found["node"]["state"], found["node"]["ledger"]) == ("ISOLATED", "unreachable")
        back(server, node)
        until(lambda: _synced(stats_of(node)["sync"]), "all of it synced")


def test_a_copy_of_another_ledger_is_of_no_use(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        copied(Admin(node))
        caught_up(node)
    server.stop()
    with starting_node(url.rsplit("/", 1)[0] + "/another_ledger", tmp_path, **_BUDGET) as node:
        time.sleep(1)
        assert node.http.get("/readyz").status_code == 503


# -- what two nodes grant at once -------------------------------------------------------------------------------------


def test_the_last_seat_given_twice_is_kept_and_shown(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with (
        running_node(url, tmp_path / "a", NODE_ID="a", **_BUDGET) as one,
        running_node(url, tmp_path / "b", NODE_ID="b", NODE_RANK="2", **_BUDGET) as two,
    ):
        admin = Admin(one)
        license = copied(admin, max_machines=1, max_uses=1)
        caught_up(one), caught_up(two)
        server.stop()
        for number, node in enumerate((one, two)):
            until(lambda n=node: n.call("validate", license["key"]).status == 200, "a check")  # type: ignore[misc]
            assert node.call("activate", license["key"], fingerprint=f"pc-{number}").code == "VALID"
            assert node.call("usage", license["key"]).code == "VALID"
        server.start()
        for node in (one, two):
            drained(server, node)
        row = license_row(one, license)
        assert (row["seats"], row["excess"], row["uses"]) == (2, 1, 2)
        findings = rows(one.database, tables.replay_findings)
        assert Counter(finding["kind"] for finding in findings) == {"seats": 1, "uses": 1}
        until(lambda: stats_of(one)["sync"]["conflicts"] == 2, "both on /stats")
        for number in range(2):
            until(
                lambda n=number: one.call("ping", license["key"], fingerprint=f"pc-{n}").code == "USES_EXHAUSTED",  # type: ignore[misc]
                "the machine is known",
            )
