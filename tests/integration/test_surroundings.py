"""A database that is there and cannot work: a right, a table, a column or a disk is missing, or somebody added a rule.

Nobody's call is at fault, and nobody's event: calls are answered from the copy and queued, nothing is set aside, and
all of it is in the ledger once afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from api.ledger import migrate, tables
from api.ledger.errors import LedgerError, LedgerUnavailable
from api.ledger.records import LicenseQuery
from api.signing import key_claim
from failover import EventQueue
from failover.queue import Event as Row
from tests.support.admin import Admin
from tests.support.cli import Cli
from tests.support.ledger import batch, event
from tests.support.nodes import ADMIN_TOKEN, Answer, Node, environment, opened_ledger, rows, running_node, sell
from tests.support.postgres import PostgresServer
from tests.support.processes import until

_BUDGET = {"LEDGER_BUDGET": "0.5"}
_BROKEN_S = 8.0
_ROLE = "seller"
_DISK_FULL = """
CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER no_space BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_space()
"""


_RAISES = _DISK_FULL.replace("could not extend file: No space left on device", "secret of a vendor").replace(
    "53100", "42501"
)


@pytest.fixture
def capture() -> Iterator[list[str]]:
    """The reasons in what the ledger logs."""
    reasons: list[str] = []
    logger, handler = logging.getLogger("protecao.ledger"), logging.Handler()
    handler.emit = lambda record: reasons.append(getattr(record, "reason", ""))  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)  # nodes of this process may have said otherwise
    yield reasons
    logger.setLevel(level)
    logger.removeHandler(handler)


@dataclass(frozen=True)
class Break:
    """What an operator does to the database, what undoes it, and what the trouble says of it."""

    name: str
    does: str
    undoes: str
    says: str


BREAKS = [
    Break("a revoked table", "REVOKE ALL ON machines FROM seller", "GRANT ALL ON machines TO seller", "42501"),
    Break("a renamed log", "ALTER TABLE events RENAME TO e_", "ALTER TABLE e_ RENAME TO events", "42P01"),
    Break(
        "a column that is gone",
        "ALTER TABLE machines RENAME COLUMN platform TO p_",
        "ALTER TABLE machines RENAME COLUMN p_ TO platform",
        "42703",
    ),
    Break(
        "a rule that refuses everything",
        "ALTER TABLE events ADD CONSTRAINT no_more CHECK (seq < 0) NOT VALID",
        "ALTER TABLE events DROP CONSTRAINT no_more",
        "23514",
    ),
    Break("a full disk", _DISK_FULL, "DROP TRIGGER no_space ON events", "53100"),
    Break(
        "a role that may only read",
        "ALTER ROLE seller SET default_transaction_read_only = on",
        "ALTER ROLE seller RESET default_transaction_read_only",
        "25006",
    ),
]


@pytest.fixture
def url(server: PostgresServer, url: str) -> Iterator[str]:
    """The test's database, owned by a role that is no superuser: nobody can revoke a right from one."""
    name = url.rsplit("/", 1)[1]
    as_superuser(url, f"CREATE ROLE {_ROLE} LOGIN; GRANT ALL ON DATABASE {name} TO {_ROLE}")
    as_superuser(url, f"GRANT ALL ON SCHEMA public TO {_ROLE}")
    yield url.replace("postgres@", f"{_ROLE}@")
    server.start()
    as_superuser(url, f"DROP OWNED BY {_ROLE}; DROP ROLE {_ROLE}")


def as_superuser(url: str, statements: str) -> None:
    connection = psycopg2.connect(url.replace(f"{_ROLE}@", "postgres@"))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statements)
    finally:
        connection.close()


def copied(node: Node, **rules: Any) -> dict[str, Any]:
    """A license that the node's snapshot has."""
    admin = Admin(node)
    license = admin.license(policy=admin.policy(**rules))
    until(lambda: node.runtime.reader.has_key(key_claim(license["key"])), "a copy of the license")
    return license


def troubles(node: Node) -> str:
    return "\n".join(node.http.get("/readyz").json["troubles"])  # type: ignore[index]


def sync_of(node: Node) -> dict[str, Any]:
    return dict(node.http.get("/stats", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}).json["sync"])  # type: ignore[index]


class Customers:
    """Two of them, who call all the time until they are told to stop."""

    def __init__(self, node: Node, licenses: list[dict[str, Any]]) -> None:
        self._node, self._end = node, threading.Event()
        self._pool = ThreadPoolExecutor(len(licenses))
        self._told = [self._pool.submit(self._call, license) for license in licenses]

    def _call(self, license: dict[str, Any]) -> list[tuple[str, Answer]]:
        told: list[tuple[str, Answer]] = []
        while not self._end.wait(0.1):
            act = ("usage", "validate", "activate", "ping")[len(told) % 4]
            fields = {"fingerprint": "pc"} if act in ("activate", "ping") else {}
            request_id = f"{license['id'][-8:]}-{len(told):08d}"
            told.append((act, self._node.call(act, license["key"], request_id=request_id, **fields)))
        return told

    def end(self) -> list[tuple[str, Answer]]:
        """What they were told."""
        self._end.set()
        return [answer for told in self._told for answer in told.result(60)]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda one: one.name)
def test_what_the_database_refuses_to_everybody_costs_no_answer_and_no_event(
    server: PostgresServer, url: str, tmp_path: Path, broken: Break
) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        licenses = [copied(node, max_machines=9) for _ in range(2)]
        for license in licenses:
            assert node.call("activate", license["key"], fingerprint="pc").code == "VALID"
        as_superuser(url, broken.does)
        server.stop()
        queued = [("usage", node.call("usage", licenses[n % 2]["key"], request_id=f"first-{n:08d}")) for n in range(11)]
        server.start()
        customers, began = Customers(node, licenses), time.monotonic()
        until(lambda: broken.says in troubles(node), "/readyz says why")
        time.sleep(max(0.0, _BROKEN_S - (time.monotonic() - began)))  # for as long as an operator takes to notice
        assert sync_of(node)["dead"] == 0
        as_superuser(url, broken.undoes)
        until(lambda: not node.runtime.state.breaker.may_hold_queued, "an empty queue", 60)
        told = queued + customers.end()
        until(lambda: not node.runtime.state.breaker.may_hold_queued, "an empty queue", 60)
        all_is_there(node, told, licenses)
        until(lambda: broken.says not in troubles(node), "the trouble is over")
        with_queue = EventQueue(tmp_path / "sync_queue.db")
        assert (with_queue.stats().dead, with_queue.stats().pending) == (0, 0)
        assert with_queue.stats().synced >= 11
        with_queue.close()


def test_a_schema_that_may_not_be_used_is_named_and_a_triggers_own_words_are_logged_only(
    url: str, capture: list[str]
) -> None:
    with opened_ledger(url) as ledger:
        migrate.upgrade(ledger.database)
        sold = sell(ledger.database)
        as_superuser(url, "REVOKE USAGE ON SCHEMA public FROM seller, public")
        for ask in (
            lambda: ledger.look_up([LicenseQuery(sold.key_hash)]),
            lambda: ledger.append(batch(event(sold))),
            lambda: migrate.ledger_id(ledger.database),
            lambda: migrate.upgrade(ledger.database),
        ):
            with pytest.raises(LedgerError, match="42501: permission denied for schema public"):
                ask()
        as_superuser(url, "GRANT USAGE ON SCHEMA public TO seller, public")
        as_superuser(url, _RAISES)
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="42501: a trigger or function") as raised:
                ledger.append(batch(event(sold)))
            assert "secret" not in str(raised.value)
        assert [line for line in capture if "secret of a vendor" in line] == ["secret of a vendor"]


def all_is_there(node: Node, told: list[tuple[str, Answer]], licenses: list[dict[str, Any]]) -> None:
    """Every call was answered with a verdict, and is in the log once; what they added up to is right."""
    assert {(answer.status, answer.code) for _, answer in told} == {(200, "VALID")}
    logged = [event["event_id"] for event in rows(node.database, tables.events)]
    assert len(logged) == len(set(logged))
    assert {(answer.claims or {})["jti"] for _, answer in told} <= set(logged)
    uses = sum(rows(node.database, tables.licenses, id=one["id"])[0]["uses"] for one in licenses)
    assert uses == sum(act == "usage" for act, _ in told)
    assert rows(node.database, tables.replay_findings) == []


def test_a_license_that_somebody_holds_open_holds_up_only_its_own_events(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        held, other = copied(node), copied(node)
        server.stop()
        for license in (held, other):
            for _ in range(5):
                assert node.call("usage", license["key"]).body["durability"] == "queue"
        lock = locked_at_start(server, url, held["id"])
        until(lambda: uses(node, other) == 5, "the other license's events are in the ledger")
        assert uses(node, held) == 0
        until(lambda: "of other licenses go on" in troubles(node), "/readyz says so")
        lock.close()
        until(lambda: uses(node, held) == 5, "and now its own")
        until(lambda: "are not taken" not in troubles(node), "the trouble is over")


def locked_at_start(server: PostgresServer, url: str, license_id: str) -> Any:
    """Starts the server, and has the license's row locked as by an open psql. No node may come before it."""
    server.start()
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM licenses WHERE id = %s FOR UPDATE", (license_id,))
    return connection


def uses(node: Node, license: dict[str, Any]) -> int:
    return int(rows(node.database, tables.licenses, id=license["id"])[0]["uses"])


# -- what was set aside ------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_set_aside_and_said_and_comes_back_when_it_is_revived(url: str, tmp_path: Path) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        license, cli = copied(node), Cli(environment(url, tmp_path, **_BUDGET))
        path = tmp_path / "sync_queue.db"
        queue = EventQueue(path)
        queue.append([Row("unreadable-1", "usage", "{}", 1_700_000_000.0, license["id"])])
        node.runtime.state.breaker.will_queue()
        until(lambda: "1 events of this node's queue are set aside" in troubles(node), "/readyz says so")
        assert sync_of(node)["dead"] == 1
        (dead,) = cli.json("events", "dead")
        assert (dead["event_id"], dead["license_id"], dead["tries"]) == ("unreadable-1", license["id"], 5)
        assert "ValidationError" in dead["reason"]
        assert cli.json("events", "dead", "--license", str(uuid.uuid4())) == []
        assert "not set aside" in cli.fails("events", "revive", "unknown-1")
        assert f"1 events wait again in {path}" in cli.ok("events", "revive", "--license", license["id"])
        until(lambda: queue.stats().dead == 1, "nobody can read it now either")
        make_readable(queue, node, license)
        assert "1 events wait again" in cli.ok("events", "revive")
        until(lambda: uses(node, license) == 1, "it is in the ledger")
        until(lambda: sync_of(node)["dead"] == 0, "and /stats says so")
        until(lambda: "set aside" not in troubles(node), "the trouble is over")
        queue.close()


def make_readable(queue: EventQueue, node: Node, license: dict[str, Any]) -> None:
    """As a later release would read it: the row that was set aside has what an event has."""
    import msgspec

    from failover.queue_file import checksum

    data = {"code": "VALID", "valid": True, "call": {"act": "usage"}}
    common = {"node": "n", "instance": "i", "epoch": 0, "mode": "isolated", "occurred_at": 1_700_000_000.0}
    body = msgspec.json.encode(
        {"event_id": "unreadable-1", "type": "usage", "license_id": license["id"], "data": data, **common}
    ).decode()
    digest = checksum("unreadable-1", "usage", license["id"], 1_700_000_000.0, body)
    with queue._writing() as connection:
        connection.execute("UPDATE events SET body = ?, checksum = ? WHERE state = 'dead'", (body, digest))


@pytest.mark.parametrize("fails", [lambda cli: cli.fails("events", "dead"), lambda cli: cli.fails("events", "revive")])
def test_a_node_without_a_queue_has_nothing_to_revive(
    sqlite_url: str, tmp_path: Path, fails: Callable[[Cli], str]
) -> None:
    folder = tmp_path / "empty"
    assert f"there is no queue at {folder / 'sync_queue.db'}" in fails(Cli(environment(sqlite_url, folder)))
