"""What a ledger promises those who want the same licenses at once: an order, an end to waiting, and true counts."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from api.ledger.errors import LedgerBusy
from api.ledger.records import Change, LicenseQuery
from api.ledger.store import Ledger
from api.licensing import Holding
from tests.support.ledger import batch, event, known, machine, with_machines
from tests.support.nodes import change_license, license_row, opened_ledger, sell
from tests.support.processes import until

#: How many sessions of this database wait for a lock.
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger


def test_a_seat_taken_meanwhile_is_counted_by_who_waited_for_the_lock(ledger: Ledger, ledger_url: str) -> None:
    sold = sell(ledger.database)
    counted: list[int] = []
    entered = threading.Event()

    def wait_and_count() -> None:
        with opened_ledger(ledger_url) as other:
            entered.set()
            while not counted:
                # On a noisy machine the lock may be held for longer than anybody waits for it.
                with contextlib.suppress(LedgerBusy), other.transaction([LicenseQuery(sold.key_hash)]) as transaction:
                    counted.append(known(transaction.known[0]).seats)

    waiter = threading.Thread(target=wait_and_count)
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        waiter.start()
        entered.wait(30)
        time.sleep(0.1)  # long enough to stand in the lock's queue, short of the lock's time-out
        before = known(transaction.known[0])
        change = Change(before, with_machines(before, machine(sold, "here")))
        transaction.commit(batch(event(sold), changes=[change]))
    waiter.join(30)
    assert counted == [1]


@pytest.mark.parametrize("how", ["imported", "reissued"])
def test_a_license_that_came_while_another_was_waited_for_is_not_read_unlocked(postgres_url: str, how: str) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        held, reissued = sell(ledger.database), sell(ledger.database)
        new_hash = uuid.uuid4().hex
        found: list[object] = []

        def ask_for_both() -> None:
            asks = [LicenseQuery(held.key_hash), LicenseQuery(new_hash)]
            while len(found) == found.count(LedgerBusy):
                try:
                    with other.transaction(asks) as transaction:
                        found.extend(known(answer).license.id for answer in transaction.known)
                except LedgerBusy:
                    found.append(LedgerBusy)

        waiter = threading.Thread(target=ask_for_both)
        with ledger.transaction([LicenseQuery(held.key_hash)]):
            waiter.start()
            with ledger.database.reading() as connection:
                until(lambda: connection.exec_driver_sql(_WAITING).scalar(), "one who waits for the lock", 30)
            came = sell(ledger.database) if how == "imported" else reissued
            change_license(ledger.database, came, key_hash=new_hash)
        waiter.join(30)
        assert set(found[:-2]) == {LedgerBusy}
        assert found[-2:] == [held.id, came.id]


def test_a_license_that_is_held_too_long_is_busy_and_others_are_not(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        held, free = sell(ledger.database), sell(ledger.database)
        with ledger.transaction([LicenseQuery(held.key_hash)]):
            with other.transaction([LicenseQuery(free.key_hash)]) as transaction:
                transaction.commit(batch(event(free)))
            began = time.monotonic()
            with pytest.raises(LedgerBusy), other.transaction([LicenseQuery(held.key_hash)]):
                pass
            assert 0.2 < time.monotonic() - began < 5


def test_licenses_asked_for_in_any_order_are_locked_without_a_deadlock(ledger: Ledger, ledger_url: str) -> None:
    sold = [sell(ledger.database) for _ in range(12)]
    asks = [LicenseQuery(one.key_hash) for one in sold]

    start, busy = threading.Barrier(3), list[int]()

    def used_once_more(before: Holding) -> Change:
        return Change(before, replace(before, license=replace(before.license, uses=before.license.uses + 1)))

    def work(asks: list[LicenseQuery]) -> None:
        with opened_ledger(ledger_url) as mine:
            start.wait(30)
            used = 0
            while used < 40:
                try:
                    with mine.transaction(asks) as transaction:
                        changes = [used_once_more(known(answer)) for answer in transaction.known]
                        transaction.commit(batch(event(sold[0]), changes=changes))
                    used += 1
                except LedgerBusy:
                    busy.append(used)

    threads = [threading.Thread(target=work, args=(order,)) for order in (asks, asks[::-1], asks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [license_row(ledger.database, one)["uses"] for one in sold] == [120] * 12
    assert len(busy) < 30, (
        "now and then a noisy machine holds a lock for too long; a deadlock would be met all the time"
    )


def test_a_license_that_is_held_is_skipped_where_nobody_may_wait_for_it(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        held, free = sell(ledger.database), sell(ledger.database)
        asks = [
            LicenseQuery(held.key_hash, "pc"),
            LicenseQuery(free.key_hash),
            LicenseQuery("nobody"),
            LicenseQuery(held.key_hash),
        ]
        with ledger.transaction([LicenseQuery(held.key_hash)]):
            began = time.monotonic()
            with other.transaction(asks, skip_locked=True) as transaction:
                assert [answer.busy for answer in transaction.known] == [True, False, False, True]
                assert [answer.holding is None for answer in transaction.known] == [True, False, True, True]
                transaction.commit(batch(event(free)))
            assert time.monotonic() - began < 0.25, "it waited for the lock"
        with other.transaction(asks, skip_locked=True) as transaction:
            assert known(transaction.known[0]).license.id == held.id


@pytest.mark.parametrize(
    ("statement", "blocked"),
    [
        ("LOCK TABLE licenses IN ACCESS EXCLUSIVE MODE", True),
        ("LOCK TABLE machines IN SHARE MODE", True),
        ("LOCK TABLE policies IN ACCESS EXCLUSIVE MODE", True),
        ("LOCK TABLE policies IN SHARE MODE", False),
        ("LOCK TABLE check_minutes IN EXCLUSIVE MODE", True),
        ("LOCK TABLE log_head IN ACCESS EXCLUSIVE MODE", True),
        ("SELECT * FROM log_head FOR UPDATE", True),
        ("SELECT * FROM licenses FOR UPDATE", False),
        ("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE", False),
    ],
)
def test_whether_every_call_is_blocked_or_some_are(postgres_url: str, statement: str, blocked: bool) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        sell(ledger.database)
        with other.database.writing() as connection:
            connection.exec_driver_sql(statement)
            assert ledger.is_blocked() is blocked
        assert not ledger.is_blocked()
        ledger.append(batch(event(sell(ledger.database))))  # the connection is as good as before


#: Every record takes longer than anybody waits for a lock, and no longer than a statement may take.
_SLOWLY_RECORDED = """
CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$;
CREATE TRIGGER take_time BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.type = 'slow') EXECUTE FUNCTION take_time()
"""
_HOLDS_THE_HEAD = (
    "SELECT count(*) FROM pg_locks WHERE granted AND relation = 'log_head'::regclass AND mode = 'RowExclusiveLock'"
)


@pytest.mark.parametrize(("name", "blocked"), [("a node", False), ("psql", True)])
def test_a_node_that_is_slow_itself_is_not_taken_for_others_who_hold_the_heads_row(
    postgres_url: str, name: str, blocked: bool
) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other, ThreadPoolExecutor(1) as pool:
        sold = sell(ledger.database)
        with other.database.writing() as connection:
            connection.exec_driver_sql(_SLOWLY_RECORDED)
        if name == "psql":
            with other.database.reading() as connection:
                connection.exec_driver_sql("SET application_name = 'psql'")
        holder = pool.submit(other.append, batch(event(sold, type="slow")))
        with ledger.database.reading() as connection:
            until(lambda: connection.exec_driver_sql(_HOLDS_THE_HEAD).scalar(), "the head is held", 30)
        assert ledger.is_blocked() is blocked
        holder.result(30)
        assert not ledger.is_blocked()


def test_a_table_that_others_only_wait_to_lock_is_blocked_as_well(postgres_url: str) -> None:
    """A change of a table that waits behind a long read has every call wait behind itself."""
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other, ThreadPoolExecutor(1) as pool:
        with other.database.writing() as reading, other.database.writing() as waiting:
            reading.exec_driver_sql("SELECT 1 FROM machines")
            alter = pool.submit(waiting.exec_driver_sql, "LOCK TABLE machines IN ACCESS EXCLUSIVE MODE")
            with ledger.database.reading() as connection:
                until(lambda: connection.exec_driver_sql(_WAITING).scalar(), "one who waits for the lock", 30)
            assert ledger.is_blocked()
            reading.exec_driver_sql("ROLLBACK")
            alter.result(30)
        assert not ledger.is_blocked()


def test_a_transaction_that_this_process_was_too_slow_to_go_on_with_is_busy(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        sold = sell(ledger.database)

        def commit_too_late() -> None:
            with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
                with other.database.reading() as connection:
                    left = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
                    until(lambda: not connection.exec_driver_sql(left).scalar(), "the server ended it", 30)
                transaction.commit(batch(event(sold)))

        with pytest.raises(LedgerBusy):
            commit_too_late()
        ledger.append(batch(event(sold)))


def test_an_embedded_ledger_is_blocked_while_another_writes(sqlite_url: str) -> None:
    with opened_ledger(sqlite_url) as ledger, opened_ledger(sqlite_url) as other:
        assert not ledger.is_blocked()
        with ThreadPoolExecutor(1) as pool, other.database.writing():
            assert pool.submit(ledger.is_blocked).result()
        assert not ledger.is_blocked()
        ledger.append(batch(event(sell(ledger.database))))
