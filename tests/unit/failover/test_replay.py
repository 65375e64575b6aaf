"""Replay: in order, each event once, whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from failover.errors import Refused
from failover.queue import Event, EventQueue, Queued
from failover.replay import Replay, Replayed


class Ledger:
    """An idempotent handler in memory: a batch is applied as a whole or not at all."""

    def __init__(self) -> None:
        self.events: dict[str, None] = {}
        self.calls = 0
        self.bad: set[str] = set()
        self.lose_answers = 0
        self.down = False

    def __call__(self, origin: str, batch: Sequence[Queued]) -> None:
        self.calls += 1
        if self.down:
            raise ConnectionError("down")
        ids = [queued.event.event_id for queued in batch]
        if bad := self.bad & set(ids):
            raise Refused(f"{sorted(bad)[0]} is not valid")
        self.events.update(dict.fromkeys(ids))
        if self.lose_answers:
            self.lose_answers -= 1
            raise ConnectionError("the commit is in doubt")

    @property
    def order(self) -> list[str]:
        return list(self.events)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EventQueue]:
    made = EventQueue(tmp_path / "sync_queue.db")
    made.append([Event(f"e{number}", "check", "{}", 1.0, f"lic{number % 3}") for number in range(10)])
    yield made
    made.close()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


ALL = [f"e{number}" for number in range(10)]


def test_everything_goes_in_order_and_in_batches(queue: EventQueue, ledger: Ledger) -> None:
    assert Replay(queue, ledger, batch=4).run() == Replayed(synced=10)
    assert (ledger.order, ledger.calls) == (ALL, 3)
    assert (queue.stats().pending, queue.stats().synced) == (0, 10)
    assert Replay(queue, ledger).run() == Replayed()


def test_a_batch_in_doubt_is_sent_again_and_counts_no_try(queue: EventQueue, ledger: Ledger) -> None:
    ledger.lose_answers = 7
    replay = Replay(queue, ledger, batch=4)
    for _ in range(7):
        with pytest.raises(ConnectionError):
            replay.run()
    assert replay.run() == Replayed(synced=10)
    assert ledger.order == ALL
    assert queue.stats().dead == 0


def test_an_outage_is_waited_for_as_long_as_it_takes(queue: EventQueue, ledger: Ledger) -> None:
    ledger.down = True
    for _ in range(20):
        with pytest.raises(ConnectionError):
            Replay(queue, ledger).run()
    ledger.down = False
    assert Replay(queue, ledger).run() == Replayed(synced=10)


def test_a_refused_event_is_set_aside_after_5_tries_and_the_others_go_on(queue: EventQueue, ledger: Ledger) -> None:
    ledger.bad = {"e1"}
    replay = Replay(queue, ledger, batch=4)
    assert replay.run() == Replayed(synced=7, refused=1)
    assert ledger.order == ["e0", "e2", "e3", "e5", "e6", "e8", "e9"], "e4 and e7 are of the same license"
    for _ in range(3):
        assert replay.run() == Replayed(refused=1)
    assert replay.run() == Replayed(synced=2, dead=1)
    assert ledger.order[-2:] == ["e4", "e7"]
    [dead] = queue.dead()
    assert (dead.event.event_id, dead.tries) == ("e1", 5)


def test_a_fault_that_passes_sets_nothing_aside(queue: EventQueue, ledger: Ledger) -> None:
    ledger.bad = {"e0"}
    replay = Replay(queue, ledger)
    replay.run()
    ledger.bad = set()
    assert replay.run() == Replayed(synced=4)
    assert sorted(ledger.order) == ALL


def test_two_runs_at_once_do_not_mix(queue: EventQueue, ledger: Ledger) -> None:
    inner: list[Replayed] = []

    def handler(origin: str, batch: Sequence[Queued]) -> None:
        inner.append(Replay(queue, ledger).run())
        ledger(origin, batch)

    assert Replay(queue, handler).run() == Replayed(synced=10)
    assert inner == [Replayed()]


def test_5000_events_a_second_are_within_reach(tmp_path: Path) -> None:
    queue = EventQueue(tmp_path / "many.db")
    for start in range(0, 10_000, 500):
        queue.append([Event(f"e{number}", "check", "{}", 1.0) for number in range(start, start + 500)])
    ledger = Ledger()
    began = time.process_time()  # the machine's other work and its disk are not what is measured
    assert Replay(queue, ledger).run().synced == 10_000
    rate = 10_000 / (time.process_time() - began)
    queue.close()
    assert rate > 5_000
