"""Replay on each ledger: what it writes of events that change little, and what it makes of what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from api.checks.isolated import to_row
from api.ledger import tables
from api.ledger.store import Ledger
from api.node.clock import Clock
from api.supervisor.replay import LedgerReplay
from failover import EventQueue, Replay
from failover.errors import Doubted, NotTaken, Unreadable
from failover.queue import Event as Row
from failover.queue import Queued
from failover.replay import Replayed
from tests.support.ledger import event, machine, seat
from tests.support.nodes import Sold, license_row, opened_ledger, rows, sell


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger


def test_a_machine_is_seen_though_its_license_was_by_another_a_moment_ago(ledger: Ledger) -> None:
    """A seat may hang on it: `release_stale_days` gives the longest unseen away."""
    sold = sell(ledger.database)
    here, there = machine(sold, "here", active=True), machine(sold, "there", active=True)
    seat(ledger, sold, here, there)
    replay = LedgerReplay(ledger, "n", Clock())
    for position, (fingerprint, at) in enumerate((("here", 1_000.0), ("there", 2_000.0), ("here", 2_030.0)), start=1):
        data = {"call": {"act": "validate", "fingerprint": fingerprint}, "code": "VALID", "valid": True}
        row = to_row(event(sold, mode="isolated", occurred_at=at, data=data))
        replay("origin", [Queued(position, row, 0, at)])
    assert rows(ledger.database, tables.machines, id=here.id)[0]["last_seen_at"] == 2_030.0
    assert license_row(ledger.database, sold)["last_seen_at"] == 2_030.0


@pytest.mark.parametrize(("ahead", "seats"), [(30.0, 1), (3_600.0, 0), (2 * 365 * 86_400.0, 0)])
def test_a_machine_seated_while_the_ledgers_clock_was_ahead_leaves_with_a_deactivation_that_is_replayed(
    ledger: Ledger, ahead: float, seats: int
) -> None:
    sold, clock = sell(ledger.database), Clock()
    pc = replace(machine(sold, "pc", active=True), seat_at=clock.now() + ahead)
    seat(ledger, sold, pc)
    data = {"call": {"act": "deactivate", "fingerprint": "pc"}, "code": "VALID", "valid": True}
    row = to_row(event(sold, type="deactivate", mode="isolated", occurred_at=clock.now(), data=data))
    LedgerReplay(ledger, "n", clock)("origin", [Queued(1, row, 0, clock.now())])
    assert license_row(ledger.database, sold)["seats"] == seats
    assert rows(ledger.database, tables.machines, id=pc.id)[0]["active"] is (seats == 1)


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EventQueue]:
    made = EventQueue(tmp_path / "sync_queue.db")
    yield made
    made.close()


def usage(sold: Sold, *, epoch: int = 3, **call: Any) -> Row:
    data = {"call": {"act": "usage", **call}, "code": "VALID", "valid": True}
    return to_row(event(sold, type="usage", epoch=epoch, mode="isolated", data=data))


def replay_of(ledger: Ledger, queue: EventQueue) -> tuple[Replay, LedgerReplay]:
    handler = LedgerReplay(ledger, "n", Clock())
    return Replay(queue, handler, on_dead=handler.note_dead, ledger=handler.ledger_id), handler


def do(ledger: Ledger, *statements: str) -> None:
    with ledger.database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("table", ["machines", "licenses", "policies", "events"])
def test_a_table_that_is_not_there_for_a_while_spends_nobodys_tries(
    ledger: Ledger, queue: EventQueue, table: str
) -> None:
    sold = [sell(ledger.database) for _ in range(20)]
    queue.append([usage(one) for one in sold for _ in range(2)])
    replay, _ = replay_of(ledger, queue)
    do(ledger, f"ALTER TABLE {table} RENAME TO put_away")
    for _ in range(12):
        assert replay.run().synced == 0
    assert replay.held is not None
    assert replay.held.everything
    assert {queued.tries for queued in queue.pending(100)} == {0}
    do(ledger, f"ALTER TABLE put_away RENAME TO {table}")
    assert replay.run() == Replayed(synced=40)
    assert [license_row(ledger.database, one)["uses"] for one in sold] == [2] * 20
    assert rows(ledger.database, tables.replay_findings) == []


def test_events_that_a_ledger_refuses_while_it_takes_others_of_their_kind_are_set_aside(
    ledger: Ledger, queue: EventQueue
) -> None:
    """An epoch that no column holds: no other event has a part in that."""
    sold, full = sell(ledger.database), sell(ledger.database)
    replay, _ = replay_of(ledger, queue)
    queue.append([usage(full, epoch=2**63), usage(full, epoch=2**63)])
    for _ in range(6):
        assert replay.run() == Replayed(held=1)
    for _ in range(5):
        queue.append([usage(sold)])
        replay.run()
    assert (queue.stats().dead, queue.stats().pending) == (1, 1), "its second one begins anew"
    (found,) = rows(ledger.database, tables.replay_findings)
    assert (found["kind"], found["license_id"]) == ("dead", full.id)
    assert license_row(ledger.database, sold)["uses"] == 5


@pytest.mark.parametrize(
    "body", ["{}", "not JSON", '{"event_id": 7}', "[]"], ids=["empty", "no JSON", "of another type", "a list"]
)
def test_what_cannot_be_read_says_so_itself(ledger: Ledger, body: str) -> None:
    handler = LedgerReplay(ledger, "n", Clock())
    with pytest.raises(Unreadable):
        handler("origin", [Queued(1, Row("e", "usage", body, 1.0, "lic"), 0, 1.0)])


@pytest.mark.parametrize(
    "data", [{}, {"call": 1}, {"call": {"act": "fly"}}, {"call": {"act": "usage"}, "code": "NEWER", "valid": True}]
)
def test_an_event_without_what_replay_needs_cannot_be_read(ledger: Ledger, data: dict[str, Any]) -> None:
    row = to_row(event(sell(ledger.database), type="usage", data=data))
    with pytest.raises(Unreadable):
        LedgerReplay(ledger, "n", Clock())("origin", [Queued(1, row, 0, 1.0)])


def test_an_error_that_nobody_expected_is_doubted_and_costs_nobody_else_a_thing(
    ledger: Ledger, queue: EventQueue
) -> None:
    sold, other = sell(ledger.database), sell(ledger.database)
    row = usage(sold)
    handler = LedgerReplay(ledger, "n", Clock())

    class Broken(LedgerReplay):
        def _key_hashes(self, licenses: set[str]) -> dict[str, str]:
            if sold.id in licenses:
                raise UnicodeEncodeError("latin-1", "\u7d4c", 0, 1, "ordinal not in range")
            return super()._key_hashes(licenses)

    broken = Broken(ledger, "n", Clock())
    with pytest.raises(Doubted, match="UnicodeEncodeError"):
        broken("origin", [Queued(1, row, 0, 1.0)])
    queue.append([usage(other), row, usage(other)])
    assert Replay(queue, broken).run() == Replayed(synced=2, refused=1)
    assert Replay(queue, handler).run() == Replayed(synced=1)


def test_a_license_that_others_hold_holds_up_only_its_own(postgres_url: str, queue: EventQueue) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as psql:
        sold = [sell(ledger.database) for _ in range(30)]
        queue.append([usage(one) for one in sold for _ in range(3)])
        replay, handler = replay_of(ledger, queue)
        with psql.database.writing() as connection:
            connection.execute(text("SELECT 1 FROM licenses WHERE id = :id FOR UPDATE"), {"id": sold[17].id})
            with pytest.raises(NotTaken):
                handler(queue.origin, queue.pending(100))
            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(replay.run).result(60)
            if not queue.holds(sold[29].id):
                assert done == Replayed(synced=87, held=1)
            while queue.holds(sold[29].id):  # a machine that is slow ends a run before it is through
                replay.run()
            assert [license_row(ledger.database, one)["uses"] for one in sold] == [3] * 17 + [0] + [3] * 12
        assert replay.run() == Replayed(synced=3)
        assert license_row(ledger.database, sold[17])["uses"] == 3
