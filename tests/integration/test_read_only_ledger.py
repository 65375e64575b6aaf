"""A ledger that takes no writes: whose connections lead to the old primary, at a quota, or on a standby."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from api.ledger import migrate, tables
from api.ledger.database import Database
from api.ledger.errors import LedgerReadOnly
from api.ledger.records import LicenseQuery
from api.ledger.store import open_ledger
from api.node.clock import Clock
from failover import Identity, SqlLeaseStore
from failover.database import Database as LeaseDatabase
from failover.engines import Pools
from failover.errors import FailoverError
from tests.chaos.cluster.pooler import PgBouncer
from tests.support.nodes import Node, Sold, change_license, running_node, sell, starting_node
from tests.support.postgres import PostgresServer, free_port
from tests.support.processes import until
from tests.support.replication import ReplicatedPair, make_read_only, said

_NODE = {"LEDGER_BUDGET": "0.5", "HEARTBEAT_INTERVAL": "0.3", "HEARTBEAT_TIMEOUT": "1.5"}


@pytest.fixture
def pair(postgres_server: dict[str, str]) -> Iterator[ReplicatedPair]:
    if not ReplicatedPair.is_installed():
        pytest.skip("POSTGRES IS MISSING")
    with ReplicatedPair() as pair:
        yield pair


@pytest.fixture
def server(postgres_server: dict[str, str]) -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def migrated(url: str) -> str:
    database = Database(url)
    migrate.upgrade(database)
    database.close()
    return url


def copied(node: Node, sold: Sold) -> None:
    """Waits until the node's own copy has the license."""
    database = node.database
    with database.writing() as connection:
        connection.execute(text("UPDATE log_head SET seq = seq + 1"))
        connection.execute(text("UPDATE licenses SET seq = (SELECT seq FROM log_head)"))
        connection.execute(text("UPDATE policies SET seq = (SELECT seq FROM log_head)"))

    def known() -> bool:
        copy = node.runtime.reader.reading()
        return copy is not None and copy.has_key(sold.key_hash)

    until(known, "a copy with the license")


def troubles(node: Node) -> str:
    return "\n".join(json.loads(node.http.get("/readyz").data)["troubles"])


def test_a_promoted_standby_is_found_and_no_denial_comes_from_the_old_primary(
    pair: ReplicatedPair, tmp_path: Path
) -> None:
    url = migrated(pair.url())
    with running_node(url, tmp_path, **_NODE) as node:
        sold = sell(node.database)
        suspended = sell(node.database, status="suspended")
        assert node.call("activate", sold.key, fingerprint="pc").code == "VALID"
        assert node.call("validate", suspended.key).code == "SUSPENDED"
        epoch = node.runtime.node.epoch
        make_read_only(pair.primary)
        pair.promote()
        # Another node, on the new primary, lets the license go on.
        elsewhere = Database(pair.standby.url())
        change_license(elsewhere, suspended, status="active")
        began = time.monotonic()
        assert node.call("validate", suspended.key).code == "VALID"
        answer = node.call("usage", sold.key)
        assert (answer.code, answer.body["durability"]) == ("VALID", "ledger")
        assert time.monotonic() - began < 10
        until(lambda: node.runtime.node.role == "primary" and troubles(node) == "", "it leads, without a trouble", 20)
        assert node.runtime.node.epoch in (epoch, epoch + 1)
        with elsewhere.reading() as connection:
            assert connection.scalar(select(tables.licenses.c.uses).where(tables.licenses.c.id == sold.id)) == 1
        elsewhere.close()


def test_every_pool_of_a_process_lets_go_of_a_server_that_one_finds_read_only(pair: ReplicatedPair) -> None:
    pools = Pools()
    rest, leases = Database(migrated(pair.url()), pools=pools), LeaseDatabase(pair.url(), pools=pools)
    lease = SqlLeaseStore(leases)
    assert lease.acquire(Identity("i", "n", 1), 60.0) == 1
    assert port_of(rest) == pair.primary.port
    make_read_only(pair.primary)
    pair.promote()
    with pytest.raises(LedgerReadOnly), rest.writing():
        pass
    assert lease.renew(Identity("i", "n", 1), 1, 60.0), "on the new primary, without an error of its own"
    assert port_of(rest) == pair.standby.port
    rest.close()
    leases.close()


def test_a_lease_store_finds_the_promoted_server_at_its_second_try(pair: ReplicatedPair) -> None:
    me, leases = Identity("i", "n", 1), LeaseDatabase(migrated(pair.url()))
    lease = SqlLeaseStore(leases)
    lease.acquire(me, 60.0)
    make_read_only(pair.primary)
    pair.promote()
    with pytest.raises(FailoverError, match="25006"):
        lease.renew(me, 1, 60.0)
    assert lease.renew(me, 1, 60.0)
    leases.close()


def port_of(database: Database) -> object:
    with database.reading() as connection:
        return connection.scalar(text("SELECT inet_server_port()"))


def test_of_several_hosts_the_one_that_takes_writes_is_meant(pair: ReplicatedPair) -> None:
    """Whether or not the URL says so, and whichever stands first; one that nobody listens on is passed over."""
    hosts = f"127.0.0.1:{pair.standby.port},127.0.0.1:{free_port()},127.0.0.1:{pair.primary.port}"
    database = Database(f"postgresql://postgres@{hosts}/postgres")
    assert port_of(database) == pair.primary.port
    database.close()


@pytest.mark.parametrize("what", ["standby", "quota", "role"])
def test_a_ledger_that_cannot_be_written_confirms_no_denial(pair: ReplicatedPair, what: str) -> None:
    url = migrated(pair.primary.url())
    if what == "standby":
        until(pair.standby.has_caught_up, "the schema on the standby")
        url = pair.standby.url()
    elif what == "quota":
        make_read_only(pair.primary)
    else:
        said(pair.primary, "ALTER ROLE postgres SET default_transaction_read_only = on")
    ledger = open_ledger(url, str(uuid.uuid4()), Clock())
    with pytest.raises(LedgerReadOnly, match="25006"):
        ledger.look_up([LicenseQuery(key_hash="nobody's")])
    with pytest.raises(LedgerReadOnly), ledger.transaction([LicenseQuery(key_hash="nobody's")]):
        pass
    with pytest.raises(LedgerReadOnly), ledger.database.reading_one_moment():
        pass
    ledger.database.close()


def test_a_database_at_its_quota_is_a_trouble_and_what_is_answered_is_queued(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = migrated(server.url())
    with running_node(url, tmp_path, **_NODE) as node:
        sold = sell(node.database)
        copied(node, sold)
        make_read_only(server)
        answer = node.insist("usage", sold.key, request_id=uuid.uuid4().hex)
        assert (answer.code, answer.body.get("durability")) == ("VALID", "queue"), answer.body
        assert node.call("validate", f"KEY-{uuid.uuid4().hex}").status == 503
        until(lambda: "the ledger takes reads only (SQLSTATE 25006" in troubles(node), "a trouble")
        assert node.insist("validate", sold.key, request_id=uuid.uuid4().hex).body["durability"] == "queue"
        connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name <> ''"
        # A server's process ends a moment after its connection is closed.
        until(lambda: int(said(server, connections)) <= 5, "what is let go is closed")
        make_read_only(server, False)
        until(lambda: troubles(node) == "", "no trouble any more")
        until(lambda: node.call("usage", sold.key).body.get("durability") == "ledger", "the ledger again")
        until(lambda: not node.runtime.state.breaker.may_hold_queued, "what was queued is replayed")


def test_a_hot_standby_behind_a_pooler_is_named(pair: ReplicatedPair, tmp_path: Path) -> None:
    if not PgBouncer.is_installed():
        pytest.skip("PGBOUNCER IS MISSING")
    migrated(pair.primary.url())
    until(pair.standby.has_caught_up, "the schema on the standby")
    pooler = PgBouncer(pair.standby, tmp_path / "pooler").start()
    try:
        with starting_node(f"postgresql://postgres@127.0.0.1:{pooler.port}/postgres", tmp_path / "node") as node:
            until(lambda: "25006" in json.loads(node.http.get("/readyz").data)["waiting_for"], "/readyz says so")
            until(lambda: "takes reads only" in troubles(node), "a trouble")
            assert node.call("validate", "KEY-of-nobody").status == 503
    finally:
        pooler.kill()


def test_calls_at_the_moment_of_the_promotion_are_answered_and_counted_once(
    pair: ReplicatedPair, tmp_path: Path
) -> None:
    with running_node(migrated(pair.url()), tmp_path, **_NODE) as node:
        sold = sell(node.database)
        copied(node, sold)
        codes: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                codes.append(node.insist("usage", sold.key, request_id=uuid.uuid4().hex).code)
                time.sleep(0.01)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        make_read_only(pair.primary)
        pair.promote()
        asked = len(codes)
        until(lambda: len(codes) > asked + 40, "calls go on", 120)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(codes) == {"VALID"}
        until(lambda: not node.runtime.state.breaker.may_hold_queued, "what was queued is replayed", 120)
        until(lambda: uses_on(pair.standby, sold) == len(codes), f"{len(codes)} uses, on the new primary")


def uses_on(server: PostgresServer, sold: Sold) -> int:
    return int(said(server, f"SELECT uses FROM licenses WHERE id = '{sold.id}'"))
