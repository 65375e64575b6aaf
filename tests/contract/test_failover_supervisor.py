"""Supervisors on real databases and real threads: one leads, a stop is quick, queues empty themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from failover.config import Config
from failover.database import Database
from failover.model import Identity, Role, State
from failover.queue import Event, EventQueue, Queued
from failover.supervisor import Supervisor, supervise
from tests.support.failover_stores import in_database
from tests.support.processes import DEADLINE_S, until

#: Nothing here may have to wait for a time-out: it is longer than anything is waited for, or any host stands still.
QUICK = Config(
    heartbeat_interval=0.3,
    heartbeat_timeout=2 * DEADLINE_S,
    failback_delay=1.0,
    poll=0.1,
    margin=0.3,
    stagger=0.5,
    probe_interval=0.5,
)

Make = Callable[..., Supervisor]


@pytest.fixture
def make(ledger_url: str) -> Iterator[Make]:
    made: list[Supervisor] = []

    def begin(rank: int, **given: Any) -> Supervisor:
        supervisor = supervise(ledger_url, Identity.new(f"n{rank}", rank), QUICK, **given)
        supervisor.start()
        made.append(supervisor)
        return supervisor

    yield begin
    for supervisor in made:
        supervisor.stop()


def test_a_stop_hands_over_at_once_and_the_primary_gets_it_back(make: Make, ledger_url: str) -> None:
    one = make(1)
    until(one.is_leader, "rank 1 leads")
    two = make(2)
    until(lambda: len(two.status().beats) == 2, "they see each other")
    assert (one.role, two.role) == (Role.PRIMARY, Role.STANDBY)
    assert one.stop()
    until(lambda: two.role is Role.BACKUP, "rank 2 takes over without a time-out")
    assert one.state is State.STOPPING
    again = make(1)
    until(again.is_leader, "rank 1 has it back")
    until(lambda: not two.is_leader(), "rank 2 stands by")
    assert [kind for kind, *_ in in_database(ledger_url).failovers()] == ["takeover", "failback"]
    status = again.status()
    assert (status.role, status.epoch, status.lease_holder) == (Role.PRIMARY, 3, "n1")
    assert status.jobs["beat"] is not None
    assert again.stop()


def test_a_queue_empties_itself_and_an_emptied_heartbeat_table_fills(
    make: Make, tmp_path: Path, ledger_url: str
) -> None:
    queue = EventQueue(tmp_path / "sync_queue.db")
    queue.append([Event(f"e{number}", "check", "{}", 1.0) for number in range(20)])
    taken: list[str] = []

    def handler(_origin: str, batch: Sequence[Queued]) -> None:
        taken.extend(queued.event.event_id for queued in batch)

    one = make(1, queue=queue, handler=handler)
    until(lambda: one.status().queue.synced == 20, "the queue is replayed")
    assert taken == [f"e{number}" for number in range(20)]
    with Database(ledger_url).writing() as connection:
        connection.execute(text("DELETE FROM heartbeats"))
    until(lambda: in_database(ledger_url).heartbeats.read(), "the next beat writes the row again")
    assert one.is_leader()
    assert one.stop()


def test_it_is_started_once(make: Make) -> None:
    one = make(1)
    with pytest.raises(RuntimeError):
        one.start()


def test_a_database_that_is_not_there_makes_it_isolated_and_stops_nothing() -> None:
    alone = supervise("postgresql://nobody@127.0.0.1:9/none", Identity.new("n1", 1), QUICK)
    alone.start()
    until(lambda: alone.role is Role.ISOLATED, "it is isolated")
    assert alone.status().trouble is not None
    assert not alone.is_leader()
    assert alone.stop(30)
