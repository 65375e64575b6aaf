"""A trigger or a rule that keeps rows out: what is not in the ledger is not answered as if it were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from api.ledger import tables
from api.ledger.errors import LedgerDropped, LedgerUnavailable
from api.ledger.records import Change, Finding, LicenseQuery, Tally
from api.ledger.store import Ledger
from api.signing import key_claim
from tests.support.admin import Admin
from tests.support.ledger import batch, event, known, machine, with_machines
from tests.support.nodes import Node, opened_ledger, rows, running_node, sell
from tests.support.processes import until

#: Keeps out everything, or, of one license, what is written to it.
_TRIGGER = """
CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep_out BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW {when} EXECUTE FUNCTION keep_out()
"""
_NO_TRIGGER = "DROP TRIGGER keep_out ON {table}; DROP FUNCTION keep_out()"


@contextlib.contextmanager
def changed(url: str, does: str, undoes: str) -> Iterator[None]:
    """The database as an operator changed it, until the end of the block."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(does)
        try:
            yield
        finally:
            cursor.execute(undoes)


@contextlib.contextmanager
def kept_out(url: str, table: str, when: str = "") -> Iterator[None]:
    with changed(url, _TRIGGER.format(table=table, when=when), _NO_TRIGGER.format(table=table)):
        yield


def write(ledger: Ledger) -> str:
    """One of everything that a batch can bring; gives its event's id."""
    sold = sell(ledger.database)
    one = event(sold)
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        before = known(transaction.known[0])
        changes = [Change(before, with_machines(before, machine(sold, "pc")))]
        findings = [Finding(one.event_id, "dead", sold.id, "n", 1.0, {})]
        written = batch(one, changes=changes, tallies=[Tally(1, "VALID", True, 2)])
        transaction.commit(replace(written, findings=findings))
    return one.event_id


_TABLES = ["check_minutes", "replay_findings", "log_head", "machines", "events"]


def test_a_batch_of_which_a_row_is_kept_out_is_not_committed(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger:
        for table in _TABLES:
            with kept_out(postgres_url, table), pytest.raises(LedgerDropped, match="PR001") as raised:
                write(ledger)
            assert raised.value.answered
        with kept_out(postgres_url, "licenses", "WHEN (NEW.seats > 0)"), pytest.raises(LedgerDropped):
            write(ledger)
        rule = "CREATE RULE nothing AS ON INSERT TO events DO INSTEAD NOTHING"
        with (
            changed(postgres_url, rule, "DROP RULE nothing ON events"),
            pytest.raises(LedgerUnavailable, match="0A000"),
        ):
            write(ledger)
        assert rows(ledger.database, tables.machines) == rows(ledger.database, tables.replay_findings) == []
        assert rows(ledger.database, tables.log_head)[0]["seq"] == len(rows(ledger.database, tables.events))
        assert ledger.has_event(write(ledger))


def test_an_embedded_ledger_counts_as_well(sqlite_url: str) -> None:
    with opened_ledger(sqlite_url) as ledger:
        for table in ("check_minutes", "machines", "events"):
            with ledger.database.writing() as connection:
                trigger = f"CREATE TRIGGER keep_out BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END"
                connection.execute(text(trigger))
            with pytest.raises(LedgerDropped):
                write(ledger)
            with ledger.database.writing() as connection:
                connection.execute(text("DROP TRIGGER keep_out"))
        assert ledger.has_event(write(ledger))


@pytest.fixture
def node(postgres_url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(postgres_url, tmp_path, LEDGER_BUDGET="0.5") as node:
        yield node


def drained(node: Node) -> None:
    until(lambda: not node.runtime.state.breaker.may_hold_queued, "an empty queue", 60)


def test_calls_of_which_nothing_is_kept_are_queued_and_are_there_once_when_that_ends(
    node: Node, postgres_url: str
) -> None:
    admin = Admin(node)
    one, other = admin.license(), admin.license()
    for license in (one, other):
        until(lambda key=license["key"]: node.runtime.reader.has_key(key_claim(key)), "a copy of the license")
    when = f"WHEN (NEW.license_id = '{one['id']}' AND NEW.type <> 'license.updated')"
    with kept_out(postgres_url, "events", when):
        answer = node.call("usage", one["key"])
        assert (answer.code, answer.body["durability"]) == ("VALID", "queue")
        answer = node.call("usage", other["key"])
        assert (answer.code, answer.body["durability"]) == ("VALID", "ledger"), "one license's trouble is its own"
        assert node.runtime.state.breaker.last_isolated == 0.0
        said = "a trigger or a rule of this database keeps them out"
        until(lambda: said in "\n".join(node.http.get("/readyz").json["troubles"]), "/readyz says why")  # type: ignore[index]
    drained(node)
    for license in (one, other):
        assert rows(node.database, tables.licenses, id=license["id"])[0]["uses"] == 1
    assert rows(node.database, tables.replay_findings) == []


def test_no_change_of_an_admin_that_is_kept_out_is_answered_as_done(node: Node, postgres_url: str) -> None:
    admin = Admin(node)
    license, policy, product = admin.license(), admin.policy(), admin.product()
    made = {
        "licenses": lambda: admin.send("POST", "/licenses", {"policy": policy["id"]}),
        "policies": lambda: admin.send("POST", "/policies", {"product": product["code"], "name": "p"}),
        "products": lambda: admin.send("POST", "/products", {"code": "kept-out", "name": "p"}),
        "machines": lambda: admin.send("POST", "/machines", {"license": license["id"], "fingerprint": "pc"}),
        "idempotency_records": lambda: admin.send(
            "POST", "/products", {"code": "once", "name": "p"}, **{"Idempotency-Key": "kept-out-1"}
        ),
        "events": lambda: admin.send("POST", "/products", {"code": "no-event", "name": "p"}),
    }
    for table, call in made.items():
        with kept_out(postgres_url, table):
            assert call().status_code == 503, table
    with kept_out(postgres_url, "licenses", "WHEN (NEW.status = 'suspended')"):
        assert admin.send("POST", f"/licenses/{license['id']}/actions/suspend", {}).status_code == 503
    with kept_out(postgres_url, "licenses", "WHEN (NEW.name = 'new')"):
        assert admin.send("PATCH", f"/licenses/{license['id']}", {"name": "new"}).status_code == 503
    assert rows(node.database, tables.machines) == []
    for call in made.values():
        assert call().status_code == 201
