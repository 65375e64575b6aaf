"""A ledger that is there and busy: what costs everybody goes to the queue, what is one license's costs that one."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, text

from api.admin import event_log
from api.ledger import tables
from api.ledger.database import Database
from api.signing import key_claim
from tests.support.admin import Admin
from tests.support.nodes import ADMIN_TOKEN, Node, Sold, license_row, rows, running_node, sell
from tests.support.processes import until

_BUDGET_S = 0.5
#: Twice the budget, and what a noisy machine adds.
_ANSWERED_WITHIN_S = 2 * _BUDGET_S + 2.0
_LOCKED_FOR_S = 4.0


class Timed(NamedTuple):
    """One answer, and how long it took."""

    key: str
    code: str
    durability: str | None
    seconds: float


@pytest.fixture
def node(postgres_url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(postgres_url, tmp_path, LEDGER_BUDGET=str(_BUDGET_S)) as node:
        yield node


@pytest.fixture
def other(node: Node) -> Iterator[Database]:
    """Another session of the same database: an operator's psql, say."""
    with contextlib.closing(Database(node.database.url, pool_size=2)) as database:
        yield database


def sold(node: Node, count: int, **rules: Any) -> list[dict[str, Any]]:
    """Licenses that the node has in its copy."""
    admin = Admin(node)
    policy = admin.policy(**rules)
    licenses = [admin.license(policy=policy) for _ in range(count)]
    for license in licenses:
        until(lambda key=license["key"]: node.runtime.reader.has_key(key_claim(key)), "a copy of the license")
    return licenses


def timed(node: Node, act: str, key: str, **fields: Any) -> Timed:
    began = time.monotonic()
    answer = node.call(act, key, **fields)
    return Timed(key, answer.code, answer.body.get("durability"), time.monotonic() - began)


@contextlib.contextmanager
def asking(node: Node, licenses: list[dict[str, Any]], acts: tuple[str, ...]) -> Iterator[list[Timed]]:
    """Customers who call all the while, and what they were told."""
    end, told = threading.Event(), list[Timed]()

    def ask(number: int) -> None:
        license, act = licenses[number % len(licenses)], acts[number % len(acts)]
        while not end.is_set():
            told.append(timed(node, act, license["key"]))
            time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(ask, number) for number in range(8)]
        try:
            yield told
        finally:
            end.set()
        for caller in callers:
            caller.result()


def drained(node: Node) -> None:
    breaker = node.runtime.state.breaker
    until(
        lambda: breaker.isolated_since is None and not breaker.may_hold_queued, "the node is back, its queue empty", 240
    )


def counted_once(node: Node, licenses: list[dict[str, Any]]) -> None:
    """Every usage that was answered is counted, once."""
    for license in licenses:
        used = len(rows(node.database, tables.events, license_id=license["id"], type="usage"))
        assert rows(node.database, tables.licenses, id=license["id"])[0]["uses"] == used


# -- everybody's trouble ----------------------------------------------------------------------------------------------

_EVERYBODYS = {
    **{
        name: f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"
        for name in ("licenses", "machines", "policies", "log_head", "check_minutes", "events")
    },
    "the head's row": "SELECT * FROM log_head FOR UPDATE",
    "an index in the making": "CREATE INDEX ix_of_an_operator ON licenses (name, created_at)",
    "a column in the making": "ALTER TABLE machines ADD COLUMN colour VARCHAR(10)",
}


@pytest.mark.parametrize("statement", _EVERYBODYS.values(), ids=_EVERYBODYS)
def test_a_lock_on_what_every_call_needs_is_a_ledger_that_is_away(node: Node, other: Database, statement: str) -> None:
    licenses = sold(node, 4)
    with asking(node, licenses, ("validate", "usage")) as told:
        until(lambda: len(told) >= 20, "calls before the lock", 60)
        with other.writing() as connection:
            connection.execute(text(statement))
            began = len(told)
            time.sleep(_LOCKED_FOR_S)
            locked = told[began:]
            if "head" not in statement:
                assert node.http.get("/readyz").status_code == 200
            connection.execute(text("ROLLBACK"))
        drained(node)
    assert {one.code for one in told} == {"VALID"}
    # Held against what the machine does without the lock: others may be using it.
    usual = statistics.median(one.seconds for one in told[:began])
    assert max(one.seconds for one in told) < _ANSWERED_WITHIN_S + 10 * usual
    assert "queue" in {one.durability for one in locked}
    slow = [one for one in locked if one.seconds > 0.5 * _BUDGET_S + 3 * usual]
    assert len(slow) < 0.3 * len(locked), "a few find out, and no others wait"
    until(lambda: timed(node, "usage", licenses[0]["key"]).durability == "ledger", "calls on the ledger again")
    drained(node)
    counted_once(node, licenses)


# -- one license's trouble --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def holding(other: Database, table: str, license_id: str) -> Iterator[Connection]:
    """Gives the connection that holds them."""
    column = "id" if table == "licenses" else "license_id"
    with other.writing() as connection:
        connection.execute(text(f"SELECT 1 FROM {table} WHERE {column} = :id FOR UPDATE"), {"id": license_id})
        yield connection
        connection.execute(text("ROLLBACK"))


@contextlib.contextmanager
def slowed(other: Database, license_id: str) -> Iterator[None]:
    """Whatever is recorded of this license takes its time."""
    with other.writing() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$"
            )
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER dawdle BEFORE INSERT ON events FOR EACH ROW "
            f"WHEN (NEW.license_id = '{license_id}' AND NEW.type <> 'license.updated') EXECUTE FUNCTION dawdle()"
        )
    try:
        yield
    finally:
        with other.writing() as connection:
            connection.execute(text("DROP TRIGGER dawdle ON events"))


@pytest.mark.parametrize("how", ["its row", "its machine's row", "its slow statements"])
def test_one_licenses_trouble_is_that_licenses(node: Node, other: Database, how: str) -> None:
    licenses = sold(node, 4, max_machines=3)
    held, *free = licenses
    assert node.call("activate", held["key"], fingerprint="pc").code == "VALID"
    holds = {
        "its row": lambda: holding(other, "licenses", held["id"]),
        "its machine's row": lambda: holding(other, "machines", held["id"]),
        "its slow statements": lambda: slowed(other, held["id"]),
    }
    fields = {"fingerprint": "pc"} if "machine" in how else {}
    act = "activate" if fields else "usage"
    with asking(node, free, ("validate", "usage")) as told, holds[how]():
        began, state = len(told), node.runtime.state
        for attempt in range(6):
            more = {"name": f"n{attempt}"} if fields else {}
            answer = timed(node, act, held["key"], **fields, **more)
            assert (answer.code, answer.durability) == ("VALID", "queue")
            assert answer.seconds < _ANSWERED_WITHIN_S
            time.sleep(0.2)
        meanwhile = told[began:]
    assert {one.code for one in told} == {"VALID"}
    on_the_ledger = [one for one in meanwhile if one.durability == "ledger"]
    assert state.breaker.last_isolated == 0.0
    if "slow" in how:
        # A slow statement in the log itself holds its head: now and then another's call finds that too long.
        assert len(on_the_ledger) > 0.7 * len(meanwhile)
    else:
        assert len(on_the_ledger) == len(meanwhile)
    assert len(meanwhile) > 40
    drained(node)
    counted_once(node, licenses)
    assert timed(node, act, held["key"], **fields).durability == "ledger"


def test_what_a_held_license_may_not_be_told_without_the_ledger_is_overloaded(node: Node, other: Database) -> None:
    [held] = sold(node, 1, max_machines=1)
    assert node.call("activate", held["key"], fingerprint="pc").code == "VALID"
    with holding(other, "licenses", held["id"]):
        answer = node.call("activate", held["key"], fingerprint="another")
    assert (answer.status, answer.code) == (503, "OVERLOADED")
    assert answer.response.headers["Retry-After"]
    assert node.call("activate", held["key"], fingerprint="another").code == "MACHINE_LIMIT_EXCEEDED"


def test_a_new_seat_of_a_held_license_is_given_by_the_ledger_alone_and_nothing_else_waits_for_that(
    node: Node, other: Database
) -> None:
    [held] = sold(node, 1, max_machines=2)
    key = held["key"]
    assert node.call("activate", key, fingerprint="pc").code == "VALID"
    with holding(other, "licenses", held["id"]):
        for _ in range(2):  # before events of this license wait in the queue, and behind them
            answer = node.call("activate", key, fingerprint="another")
            assert (answer.status, answer.code) == (503, "OVERLOADED")
            assert answer.response.headers["Retry-After"]
            for act, fields in (
                ("usage", {}),
                ("validate", {"fingerprint": "pc"}),
                ("activate", {"fingerprint": "pc"}),
            ):
                assert timed(node, act, key, **fields).code == "VALID"
        assert node.runtime.state.breaker.last_isolated == 0.0
    drained(node)
    assert license_row(node.database, Sold(held["id"], key))["seats"] == 1
    assert timed(node, "activate", key, fingerprint="another")[1:3] == ("VALID", "ledger")


def test_a_new_seat_is_given_from_the_copy_where_the_ledger_itself_is_away_and_until_all_of_that_is_replayed(
    node: Node, other: Database
) -> None:
    [license] = sold(node, 1, max_machines=3)
    with holding(other, "licenses", license["id"]):
        assert node.call("activate", license["key"], fingerprint="pc").code == "OVERLOADED"
    drained(node)
    with holding(other, "licenses", license["id"]) as connection:
        connection.execute(text("SAVEPOINT before"))
        connection.execute(text("LOCK TABLE machines IN ACCESS EXCLUSIVE MODE"))
        assert timed(node, "activate", license["key"], fingerprint="pc")[1:3] == ("VALID", "queue")
        connection.execute(text("ROLLBACK TO before"))
        until(lambda: node.runtime.state.breaker.isolated_since is None, "the node is back, its queue not empty", 60)
        assert timed(node, "activate", license["key"], fingerprint="another")[1:3] == ("VALID", "queue")
    drained(node)
    assert license_row(node.database, Sold(license["id"], license["key"]))["seats"] == 2


def test_a_new_seat_for_which_no_connection_is_free_is_not_given_from_the_copy(node: Node) -> None:
    [license], database = sold(node, 1, max_machines=1), node.database
    with contextlib.ExitStack() as taken:
        for _ in range(database._free._value):
            taken.enter_context(database.reading())
        assert node.call("activate", license["key"], fingerprint="pc").code == "OVERLOADED"
    assert timed(node, "activate", license["key"], fingerprint="pc").durability == "ledger"


def test_a_row_that_is_held_for_less_than_the_budget_costs_its_calls_nothing_but_time(
    node: Node, other: Database
) -> None:
    [held] = sold(node, 1)
    with ThreadPoolExecutor(1) as pool:
        with holding(other, "licenses", held["id"]):
            waiting = pool.submit(timed, node, "usage", held["key"])
            time.sleep(0.1)
        assert waiting.result().durability == "ledger"


def test_a_row_of_a_policy_that_is_held_keeps_no_customer(node: Node, other: Database) -> None:
    [license] = sold(node, 1, max_machines=3)
    with other.writing() as connection:
        connection.execute(text("SELECT 1 FROM policies FOR UPDATE"))
        for act in ("validate", "activate", "usage"):
            fields = {"fingerprint": "pc"} if act == "activate" else {}
            assert timed(node, act, license["key"], **fields).durability == "ledger"
        connection.execute(text("ROLLBACK"))


def test_a_pool_without_a_free_connection_is_no_outage(node: Node) -> None:
    licenses, database = sold(node, 1), node.database
    with contextlib.ExitStack() as taken:
        for _ in range(database._free._value):
            taken.enter_context(database.reading())
        answer = timed(node, "validate", licenses[0]["key"])
        assert (answer.code, answer.durability) == ("VALID", "queue")
        assert node.runtime.state.breaker.isolated_since is None
    drained(node)
    assert timed(node, "validate", licenses[0]["key"]).durability == "ledger"


def test_a_seat_that_many_want_while_its_row_is_held_now_and_then_is_given_once(node: Node, other: Database) -> None:
    with running_node(node.database.url, node.runtime.settings.data_dir / "b", NODE_ID="b", NODE_RANK="2") as second:
        one = sell(node.database, {"max_machines": 1})
        end = threading.Event()

        def hold_now_and_then() -> None:
            while not end.is_set():
                with holding(other, "licenses", one.id):
                    time.sleep(0.05)
                time.sleep(0.01)

        with ThreadPoolExecutor(17) as pool:
            pool.submit(hold_now_and_then)
            asked = [
                pool.submit(timed, (node, second)[number % 2], "activate", one.key, fingerprint=f"pc-{number}")
                for number in range(16)
            ]
            told = [answer.result() for answer in asked]
            end.set()
    assert [answer.code for answer in told].count("VALID") == 1
    assert {answer.code for answer in told} <= {"VALID", "MACHINE_LIMIT_EXCEEDED", "OVERLOADED"}
    assert license_row(node.database, one)["seats"] == 1


# -- what admins ask --------------------------------------------------------------------------------------------------


def fill_the_log(database: Database, count: int) -> None:
    """Events as years of customers leave them."""
    with database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO events (seq, event_id, type, node, instance, epoch, mode, occurred_at, recorded_at, data) "
                "SELECT h.seq + i, gen_random_uuid()::text, 'validate', 'n', 'i', 1, 'normal', 1, 1, '{}' "
                "FROM log_head h, generate_series(1, :count) i"
            ),
            {"count": count},
        )
        connection.execute(text("UPDATE log_head SET seq = seq + :count"), {"count": count})


def test_admins_who_read_all_they_can_keep_no_customer_from_the_ledger(node: Node) -> None:
    licenses, admin, end = sold(node, 4), Admin(node), threading.Event()
    fill_the_log(node.database, 200_000)
    answers: list[tuple[int, str]] = []

    def read(path: str, accept: str) -> None:
        while not end.is_set():
            response = admin.send("GET", path, Accept=accept)
            answers.append((response.status_code, response.get_data(as_text=True)))

    reads = [("/events?type=zzz", "text/csv")] * 3 + [("/licenses?q=zzz", "*/*"), ("/events?node=zzz", "*/*")]
    with ThreadPoolExecutor(5) as pool, asking(node, licenses, ("validate", "usage")) as told:
        readers = [pool.submit(read, *one) for one in reads]
        until(lambda: len(answers) >= 15, "exports", 120)
        end.set()
        for reader in readers:
            reader.result()
    assert {(one.code, one.durability) for one in told} == {("VALID", "ledger")}
    assert node.runtime.state.breaker.last_isolated == 0.0
    assert {status for status, _ in answers} <= {200, 503}
    assert 200 in {status for status, _ in answers}
    assert all("OVERLOADED" in body for status, body in answers if status == 503)


def test_an_admin_waits_for_the_connection_of_admins_a_moment_and_no_customer_waits_with_him(node: Node) -> None:
    [license], admin = sold(node, 1), Admin(node)
    with contextlib.closing(Database(node.database.url, shared=node.runtime.admins.shared)) as another_worker:
        with another_worker.writing():
            response = admin.send("GET", "/licenses")
            assert (response.status_code, response.json["code"]) == (503, "OVERLOADED")  # type: ignore[index]
            assert response.headers["Retry-After"] == "1"
            assert timed(node, "usage", license["key"]).durability == "ledger"
        assert admin.send("GET", "/licenses").status_code == 200


def test_a_node_opens_no_more_connections_than_it_may(node: Node, other: Database) -> None:
    licenses, admin = sold(node, 4), Admin(node)
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with asking(node, licenses, ("validate", "usage")), other.reading() as connection:
        for _ in range(20):
            assert admin.send("GET", "/events").status_code == 200
            assert node.http.get("/stats", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}).status_code == 200
            # A server's process ends a moment after its connection is closed.
            until(lambda: connection.execute(text(count)).scalar_one() <= 5, "5 connections at most", 5)


def test_pages_and_exports_of_a_long_log_miss_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_WINDOW", 7)
    admin, [license] = Admin(node), sold(node, 1)
    fill_the_log(node.database, 30)
    node.call("usage", license["key"])
    fill_the_log(node.database, 30)
    node.call("usage", license["key"])
    expected = [row["seq"] for row in rows(node.database, tables.events, type="usage")]
    page = admin.ok("GET", "/events?type=usage&limit=1")
    items = list(page["items"])
    while page["next"] is not None:
        page = admin.ok("GET", f"/events?type=usage&limit=1&cursor={page['next']}")
        items += page["items"]
    assert [item["seq"] for item in items] == expected
    exported = admin.send("GET", "/events?type=usage", Accept="text/csv").text.splitlines()[1:]
    assert [int(line.split(",")[0]) for line in exported] == expected


# -- one customer who means harm --------------------------------------------------------------------------------------


def test_one_key_with_twenty_thousand_machines_that_left_costs_its_own_calls_only(node: Node) -> None:
    attacked, *others = sold(node, 5, max_machines=1)
    with node.database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO machines (id, license_id, fingerprint, active, created_at, seat_at) SELECT "
                "gen_random_uuid()::text, :license, 'dead-' || i, false, 0, extract(epoch FROM clock_timestamp()) "
                "FROM generate_series(1, 20000) i"
            ),
            {"license": attacked["id"]},
        )
    end, wanted = threading.Event(), list[Timed]()

    def attack(number: int) -> None:
        for attempt in itertools.count():
            if end.is_set():
                return
            act = "activate" if attempt % 4 == 0 else "deactivate"
            wanted.append(timed(node, act, attacked["key"], fingerprint=f"new-{number}-{attempt}"))

    with ThreadPoolExecutor(64) as pool:
        attackers = [pool.submit(attack, number) for number in range(64)]
        with asking(node, others, ("validate", "usage")) as told:
            until(lambda: len(told) >= 100 and len(wanted) >= 200, "calls of both", 120)
        end.set()
        for attacker in attackers:
            attacker.result()
    assert {one.code for one in told} == {"VALID"}
    assert {one.durability for one in told} == {"ledger"}
    assert node.runtime.state.breaker.last_isolated == 0.0
    drained(node)
    machines = rows(node.database, tables.machines, license_id=attacked["id"])
    assert sum(machine["active"] for machine in machines) <= 1
    assert not any(machine["excess"] for machine in machines)
    assert sum(machine["created_at"] == 0 for machine in machines) == 20_000
