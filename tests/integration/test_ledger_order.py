"""The order `seq` is safe for a follower: whoever reads `seq > cursor` sees every row, once, without a gap."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from api.ledger import tables
from api.ledger.errors import LedgerBusy
from api.ledger.records import Batch, Change, Event, LicenseQuery, Tally, Touch
from api.ledger.store import Ledger
from tests.support.nodes import Sold, opened_ledger, rows, sell
from tests.support.processes import until

_PROCESSES, _THREADS, _ROUNDS = 3, 2, 40


class Follower:
    """Reads the log as a node does: everything above its cursor, which it then moves."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.cursor = 0
        self.seen: list[tuple[int, str]] = []

    def poll(self) -> list[str]:
        events = tables.events.c
        query = select(events.seq, events.event_id).where(events.seq > self.cursor).order_by(events.seq)
        with self._ledger.database.reading() as connection:
            found = [(seq, event_id) for seq, event_id in connection.execute(query)]
        self.seen += found
        self.cursor = found[-1][0] if found else self.cursor
        return [event_id for _, event_id in found]


def event(license_id: str | None = None) -> Event:
    made = {"node": "n", "instance": "i", "epoch": 0, "mode": "normal", "occurred_at": 0.0, "data": {}}
    return Event(event_id=str(uuid.uuid4()), type="validate", license_id=license_id, **made)


def batch(*events: Event) -> Batch:
    return Batch(list(events), [], [Tally(1, "VALID", True, len(events))], [])


@pytest.fixture
def ledgers(postgres_url: str) -> Iterator[tuple[Ledger, Ledger]]:
    with opened_ledger(postgres_url) as one, opened_ledger(postgres_url) as two:
        yield one, two


def test_two_connections_that_commit_out_of_order_hide_no_row_from_a_follower(ledgers: tuple[Ledger, Ledger]) -> None:
    slow, quick = ledgers
    sold, follower = sell(slow.database), Follower(quick)
    first, second, third = event(sold.id), event(), event()
    with slow.transaction([LicenseQuery(sold.key_hash)]) as transaction:  # begins first, commits last
        quick.append(batch(second))
        assert follower.poll() == [second.event_id]
        transaction.commit(batch(first))
    assert follower.poll() == [first.event_id]
    quick.append(batch(third))
    assert follower.poll() == [third.event_id]
    assert [seq for seq, _ in follower.seen] == [1, 2, 3]


def test_a_client_that_freezes_before_its_commit_holds_up_nobody_else(ledgers: tuple[Ledger, Ledger]) -> None:
    frozen, other = ledgers
    sold, another = sell(frozen.database), sell(frozen.database)
    with frozen.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        began = time.monotonic()
        for _ in range(10):
            other.append(batch(event()))
            with other.transaction([LicenseQuery(another.key_hash)]) as writing:
                writing.commit(batch(event(another.id)))
        # Each would fail after the lock time-out of 0.3 s, if the frozen one held the head of the log.
        assert time.monotonic() - began < 10
        transaction.commit(batch(event(sold.id)))
    assert rows(other.database, tables.log_head)[0]["seq"] == 21


def test_a_row_that_is_written_but_not_committed_takes_no_place_in_the_order(postgres_url: str) -> None:
    """What a follower must be spared: a position given out to a transaction that is still open."""
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        follower = Follower(ledger)
        with other.database.writing() as connection:
            connection.execute(tables.log_head.update().values(seq=tables.log_head.c.seq + 1))
            with pytest.raises(LedgerBusy):
                ledger.append(batch(event()))
            connection.exec_driver_sql("ROLLBACK")
        ledger.append(batch(event()))
        assert len(follower.poll()) == 1
        assert follower.cursor == 1


def test_a_follower_of_many_writers_sees_every_row_once_and_without_a_gap(ledger_url: str, seed: int) -> None:
    with opened_ledger(ledger_url) as ledger:
        sold = [sell(ledger.database) for _ in range(4)]
        follower, written = Follower(ledger), multiprocessing.get_context("spawn").Queue()
        writers = [
            multiprocessing.get_context("spawn").Process(
                target=write_at_random, args=(ledger_url, sold, seed + number, written)
            )
            for number in range(_PROCESSES)
        ]
        for writer in writers:
            writer.start()
        expected: set[str] = set()
        for _ in writers:
            until(lambda: follower.poll() is not None and not written.empty(), "a writer's end", 120)
            expected |= written.get()
        for writer in writers:
            writer.join(60)
            assert writer.exitcode == 0
        follower.poll()
    assert [seq for seq, _ in follower.seen] == list(range(1, len(expected) + 1))
    assert {event_id for _, event_id in follower.seen} == expected


def write_at_random(url: str, sold: list[Sold], seed: int, written: multiprocessing.Queue[set[str]]) -> None:
    """Both lanes from several threads of one process, some of them dawdling; tells what was committed."""
    with opened_ledger(url) as ledger:
        done: list[str] = []
        threads = [
            threading.Thread(target=_write, args=(ledger, sold, random.Random(seed * 1000 + number), done))
            for number in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written.put(set(done))


def _write(ledger: Ledger, sold: list[Sold], chance: random.Random, done: list[str]) -> None:
    for _ in range(_ROUNDS):
        events = [event(chance.choice(sold).id) for _ in range(chance.randint(1, 5))]
        while not _written(ledger, sold, events, chance):
            time.sleep(chance.uniform(0, 0.01))
        done += [one.event_id for one in events]


def _written(ledger: Ledger, sold: list[Sold], events: list[Event], chance: random.Random) -> bool:
    try:
        if chance.random() < 0.5:
            touches = [Touch(chance.choice(sold).id, None, 1.0)]
            ledger.append(Batch(events, [], [], touches))
            return True
        with ledger.transaction([LicenseQuery(one.key_hash) for one in chance.sample(sold, 2)]) as transaction:
            time.sleep(chance.uniform(0, 0.01))
            holding = transaction.known[0].holding
            assert holding is not None
            if chance.random() < 0.2:
                return False  # leaves without a commit
            transaction.commit(Batch(events, [Change(holding, holding)], [], []))
        return True
    except LedgerBusy:
        return False
