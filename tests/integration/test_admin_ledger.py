"""How admins' changes meet the log and the ledger: its head is never held, an outage is said, nothing is half done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from api.ledger import tables
from api.ledger.errors import LedgerBusy, LedgerRefused
from api.ledger.log import Journal
from api.licensing import DAY
from api.node.clock import Clock
from api.node.identity import Node
from tests.support.admin import Admin
from tests.support.nodes import opened_ledger, rows, running_node, sell, starting_node

PRODUCT = {"id": "p1", "code": "p1", "name": "p", "created_at": 0.0}


@pytest.fixture
def journal(ledger_url: str) -> Iterator[Journal]:
    with opened_ledger(ledger_url) as ledger:
        yield Journal(ledger.database, Node("here"), Clock())


def test_a_change_is_written_with_its_event_and_stamped(journal: Journal) -> None:
    event = journal.event("product.created", id="p1")
    with journal.change() as change:
        change.connection.execute(insert(tables.products), PRODUCT)
        change.commit(event, {tables.products: ["p1"]})
    logged = rows(journal.database, tables.events)
    assert [(row["seq"], row["event_id"], row["data"]) for row in logged] == [(1, event.event_id, '{"id":"p1"}')]
    assert rows(journal.database, tables.products)[0]["seq"] == 1
    assert rows(journal.database, tables.log_head)[0]["seq"] == 1
    assert abs(logged[0]["recorded_at"] - time.time()) < 60


def test_a_change_that_is_not_committed_leaves_nothing(journal: Journal) -> None:
    with journal.change() as change:
        change.connection.execute(insert(tables.products), PRODUCT)
    with pytest.raises(LookupError), journal.change() as change:  # noqa: PT012
        change.connection.execute(insert(tables.products), PRODUCT)
        raise LookupError
    assert rows(journal.database, tables.products) == rows(journal.database, tables.events) == []


def test_an_event_that_the_log_refuses_takes_its_change_with_it(journal: Journal) -> None:
    event = journal.event("product.created")
    with journal.change() as change:
        change.commit(event)
    with pytest.raises(LedgerRefused), journal.change() as change:  # noqa: PT012
        change.connection.execute(insert(tables.products), PRODUCT)
        change.commit(event, {tables.products: ["p1"]})
    assert rows(journal.database, tables.products) == []
    assert rows(journal.database, tables.log_head)[0]["seq"] == 1
    with journal.change() as change:  # the connection is as good as before
        change.commit(journal.event("product.created"))
    assert rows(journal.database, tables.log_head)[0]["seq"] == 2


def test_the_logs_head_is_free_until_the_message_that_commits_and_after_it(postgres_url: str) -> None:
    take_head = text("SELECT seq FROM log_head FOR UPDATE NOWAIT")
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        journal = Journal(ledger.database, Node("here"), Clock())
        with journal.change() as change:
            change.connection.execute(insert(tables.products), PRODUCT)
            with other.database.reading() as connection:
                assert connection.execute(take_head).scalar() == 0
            change.commit(journal.event("product.created"), {tables.products: ["p1"]})
            # Still within the block, nothing more was sent: the message itself has committed.
            with other.database.reading() as connection:
                assert connection.execute(take_head).scalar() == 1
                assert connection.scalar(select(tables.products.c.seq)) == 1


def test_an_admin_who_waits_for_a_license_holds_up_nobody_else(postgres_url: str, tmp_path: Path) -> None:
    with running_node(postgres_url, tmp_path) as node, opened_ledger(postgres_url) as other:
        admin, sold, another = Admin(node), sell(node.database), sell(node.database)
        lock = select(tables.licenses.c.id).where(tables.licenses.c.id == sold.id).with_for_update()
        with other.database.writing() as connection, ThreadPoolExecutor(1) as pool:
            connection.execute(lock)
            waiting = pool.submit(admin.send, "POST", f"/licenses/{sold.id}/actions/suspend")
            while not waiting.done():
                assert node.call("usage", another.key).code == "VALID"
            response = waiting.result()
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert admin.ok("POST", f"/licenses/{sold.id}/actions/suspend")["status"] == "suspended"


def test_clients_and_admins_who_change_one_license_at_once_lose_nothing(ledger_url: str, tmp_path: Path) -> None:
    with running_node(ledger_url, tmp_path) as node:
        admin, sold = Admin(node), sell(node.database)
        stop = threading.Event()

        def rename() -> int:
            done = 0
            while not stop.is_set():
                response = admin.send("PATCH", f"/licenses/{sold.id}", {"name": f"n{done}"})
                done += response.status_code == 200
            return done

        with ThreadPoolExecutor(1) as pool:
            renamed = pool.submit(rename)
            used = sum(node.call("usage", sold.key).code == "VALID" for _ in range(30))
            stop.set()
            done = renamed.result()
        license = admin.ok("GET", f"/licenses/{sold.id}")
        assert (used, license["uses"], license["name"]) == (30, 30, f"n{done - 1}")
        seqs = [row["seq"] for row in rows(node.database, tables.events)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert seqs[-1] == 30 + done == rows(node.database, tables.log_head)[0]["seq"]


def test_renewals_that_come_at_once_all_count(ledger_url: str, tmp_path: Path) -> None:
    with running_node(ledger_url, tmp_path) as node:
        admin = Admin(node)
        license = admin.license(admin.policy(duration_days=30))
        before = rows(node.database, tables.licenses)[0]["expires_at"]
        with ThreadPoolExecutor(6) as pool:
            paths = [f"/licenses/{license['id']}/actions/renew"] * 6
            assert [answer["status"] for answer in pool.map(lambda path: admin.ok("POST", path), paths)] == [
                "active"
            ] * 6
        assert rows(node.database, tables.licenses)[0]["expires_at"] == before + 6 * 30 * DAY


def test_rules_that_are_changed_at_once_are_all_changed(ledger_url: str, tmp_path: Path) -> None:
    changes = {"grace_days": 3, "max_uses": 9, "cull": "keep", "floating": True, "versions": ">=2", "overage": "2x"}
    with running_node(ledger_url, tmp_path) as node:
        admin = Admin(node)
        policy = admin.policy()
        with ThreadPoolExecutor(6) as pool:
            one_each = [{name: value} for name, value in changes.items()]
            list(pool.map(lambda change: admin.ok("PATCH", f"/policies/{policy['id']}", change), one_each))
        assert admin.ok("GET", f"/policies/{policy['id']}") == {**policy, **changes}


def test_a_node_that_waits_for_its_ledger_says_so_after_what_is_wrong_with_the_call(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    with starting_node(url, tmp_path) as node:
        admin = Admin(node)
        for method, path, body in (("GET", "/licenses", None), ("POST", "/products", {"code": "x", "name": "x"})):
            response = admin.send(method, path, body)
            assert (response.status_code, response.json["code"]) == (503, "STARTING")  # type: ignore[index]
            assert response.headers["Retry-After"] == "1"
        assert admin.problem("POST", "/products", {"code": 1})["code"] == "MALFORMED"
        assert admin.problem("POST", "/products", {}, Authorization="")["code"] == "TOKEN_INVALID"
        assert admin.problem("GET", "/licenses", Authorization="Bearer not-known-yet")["code"] == "STARTING"


def test_a_ledger_that_goes_away_is_said_and_tokens_that_were_read_still_open(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_node(postgres_url, tmp_path) as node:
        admin = Admin(node)
        reader = Admin(node, admin.resources.create_token("reader", ["licenses:read"])["token"])
        assert reader.send("GET", "/licenses").status_code == 200

        def away(*_: object) -> None:
            raise OSError("the ledger is away")

        monkeypatch.setattr(node.database.engine.pool, "connect", away)
        monkeypatch.setattr(node.runtime.admins.engine, "connect", away)
        node.runtime.clock.monotonic = lambda: time.monotonic() + 2  # the tokens that were read are old by now
        for caller in (admin, reader):
            assert caller.problem("GET", "/licenses")["code"] == "LEDGER_UNAVAILABLE"
        assert reader.problem("POST", "/products", {})["code"] == "SCOPE_MISSING"
        assert admin.problem("GET", "/licenses", Authorization="Bearer wrong")["code"] == "TOKEN_INVALID"
        assert admin.problem("GET", "/events", Accept="text/csv")["code"] == "LEDGER_UNAVAILABLE"


def test_a_read_that_takes_too_long_is_no_ledger_that_is_away(postgres_url: str, tmp_path: Path) -> None:
    with running_node(postgres_url, tmp_path) as node, opened_ledger(postgres_url) as other:
        with other.database.writing() as connection:
            connection.exec_driver_sql("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            problem = Admin(node).problem("GET", "/products")
        assert (problem["status"], problem["code"]) == (503, "OVERLOADED")
        assert Admin(node).ok("GET", "/products")["items"] == []


def test_others_who_hold_the_ledger_are_a_reason_to_try_again(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger:
        journal = Journal(ledger.database, Node("here"), Clock())
        with journal.change() as change, pytest.raises(LedgerBusy):  # noqa: PT012
            change.connection.execute(insert(tables.products), PRODUCT)
            with journal.change() as second:
                second.connection.execute(insert(tables.products), PRODUCT)
