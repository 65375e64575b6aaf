"""The fence on a real Postgres: what waits for what, and what a transaction pooler must not break."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import StaticPool

from failover import sql
from failover.database import Database
from failover.errors import NotLeading, StoreBusy, StoreUnavailable
from failover.heartbeat import Report
from failover.lease import SqlLeaseStore, fence
from failover.model import Identity
from tests.support.failover_stores import Stores, in_database
from tests.support.processes import until

ONE, TWO = Identity.new("n1", 1), Identity.new("n2", 2)


def test_acquire_waits_for_a_fenced_transaction_and_renew_does_not(postgres_url: str) -> None:
    stores = in_database(postgres_url)
    other, leader = SqlLeaseStore(Database(postgres_url)), SqlLeaseStore(Database(postgres_url))
    stores.leases.acquire(ONE, 60.0)
    committed = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with Database(postgres_url, guard_s=60.0).reading() as watching, leader.fenced(ONE, 1) as connection:
            assert stores.leases.renew(ONE, 1, 0.001), "a renewal goes on beside it"
            time.sleep(0.05)
            taking = pool.submit(lambda: (other.acquire(TWO, 6.0), committed.is_set()))
            until(lambda: _waiting(watching), "one who waits for the fenced transaction")
            assert not taking.done()
            connection.execute(text("INSERT INTO failovers VALUES (99, 0, null, 'n1', 'takeover', 0)"))
            committed.set()
        assert taking.result(30) == (2, True)


def test_a_leader_frozen_inside_the_fence_is_freed_and_cannot_commit(postgres_url: str) -> None:
    stores = in_database(postgres_url)
    stores.leases.acquire(ONE, 60.0)
    taken: list[int | None] = []

    def freeze_inside_the_fence() -> None:
        with SqlLeaseStore(Database(postgres_url)).fenced(ONE, 1) as connection:
            connection.execute(text("INSERT INTO failovers VALUES (99, 0, null, 'n1', 'takeover', 0)"))
            stores.pass_time(61)
            taken.append(until(lambda: _acquired(stores, TWO), "the fence is freed"))

    with pytest.raises(StoreUnavailable):
        freeze_inside_the_fence()
    assert taken == [2]
    assert [kind for kind, *_ in stores.failovers()] == ["takeover"]


def test_a_fence_in_somebody_elses_transaction(postgres_url: str) -> None:
    stores = in_database(postgres_url)
    stores.leases.acquire(ONE, 60.0)
    with Database(postgres_url).writing() as connection:
        fence(connection, ONE, 1)
        with pytest.raises(NotLeading):
            fence(connection, TWO, 1)


def _waiting(connection: Connection) -> int:
    """How many sessions of this database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return int(connection.execute(text(query)).scalar_one())


def _acquired(stores: Stores, identity: Identity) -> int | None:
    with contextlib.suppress(StoreUnavailable, StoreBusy):
        return stores.leases.acquire(identity, 6.0)
    return None


class _Pooler:
    """A transaction pooler with one server connection: the sessions of all its clients are the same one."""

    is_sqlite = False

    def __init__(self, url: str) -> None:
        plain = url.replace("postgresql://", "postgresql+psycopg2://", 1)
        self._engine = create_engine(plain, poolclass=StaticPool)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.writing() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def test_behind_a_transaction_pooler_one_of_two_leads(postgres_url: str) -> None:
    with contextlib.closing(_Pooler(postgres_url)) as pooler:
        assert SqlLeaseStore(pooler).acquire(ONE, 6.0) == 1
        assert SqlLeaseStore(pooler).acquire(TWO, 6.0) is None


def test_no_statement_lives_in_a_session() -> None:
    statements = [value for name, value in vars(sql).items() if name.isupper() and isinstance(value, str)]
    assert len(statements) >= 10
    for statement in statements:
        assert not any(
            word in statement.lower() for word in ("advisory", "returning", "temporary", "listen", "set local")
        )


def test_a_frozen_server_is_given_up_after_the_guard(postgres_url: str) -> None:
    database = Database(postgres_url, guard_s=0.3)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), database.reading() as connection:
        connection.execute(text("SELECT pg_sleep(20)"))
    assert time.monotonic() - began < 10


def test_a_database_that_nobody_migrates_gets_its_tables(empty_ledger_url: str) -> None:
    def begin(_: int) -> None:
        Database(empty_ledger_url).create_tables()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(begin, range(3)))
    stores = in_database(empty_ledger_url)
    assert stores.leases.acquire(ONE, 6.0) == 1


def test_tables_that_an_older_release_made_get_what_they_lack(empty_ledger_url: str) -> None:
    database = Database(empty_ledger_url)
    database.create_tables()
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE heartbeats DROP COLUMN settings_digest"))
    database.create_tables()
    database.create_tables()
    report = Report(role="standby", state="STANDBY", settings_digest="d")
    stores = in_database(empty_ledger_url)
    stores.heartbeats.write(ONE, report)
    assert [beat.report for beat in stores.heartbeats.read()] == [report]
