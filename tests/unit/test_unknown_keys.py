"""Keys that nobody knows: remembered for 5 s, and at most 20 look-ups a second for all workers of a node."""

from __future__ import annotations

import threading
import time

import pytest

from api.checks.unknown_keys import TooManyUnknown, UnknownKeys
from api.node.shared_state import SharedState
from tests.support.clock import FakeClock


class Worker:
    """One worker's keys, on a clock that the test sets, without patience."""

    def __init__(self, workers: int = 1) -> None:
        self.clock = FakeClock()
        self.state = SharedState(None, self.clock)
        self.keys = UnknownKeys(self.state.changes, workers, self.clock, patience_s=0.0)

    def look_up(self, key: str, *, known: bool) -> bool:
        """One look-up of `key`; False where there was no place for it."""
        changes = self.state.changes.key_changes
        try:
            place = self.keys.enter(key)
        except TooManyUnknown:
            return False
        if known:
            self.keys.found(key, place)
        else:
            self.keys.missed(key, 77.0, changes)
        return True


def test_a_missed_key_is_remembered_for_five_seconds_with_its_time() -> None:
    worker = Worker()
    assert worker.keys.negative_cache_hit("a") is None
    worker.look_up("a", known=False)
    worker.clock.time += 4.99
    assert worker.keys.negative_cache_hit("a") == 77.0
    assert worker.keys.negative_cache_hit("b") is None
    worker.clock.time += 0.01
    assert worker.keys.negative_cache_hit("a") is None


def test_a_key_that_is_made_on_the_node_ends_all_memories_at_once() -> None:
    worker = Worker()
    worker.look_up("a", known=False)
    worker.state.changes.keys_changed()
    assert worker.keys.negative_cache_hit("a") is None


def test_a_key_that_is_made_during_its_look_up_is_not_remembered_as_unknown() -> None:
    worker = Worker()
    changes = worker.state.changes.key_changes
    worker.keys.enter("a")
    worker.state.changes.keys_changed()
    worker.keys.missed("a", 77.0, changes)
    assert worker.keys.negative_cache_hit("a") is None


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 20, 33, 64])
def test_unknown_keys_get_20_places_a_second_among_all_workers_and_not_none(workers: int) -> None:
    worker = Worker(workers)
    taken: list[float] = []
    for number in range(2_000):
        worker.clock.time += 0.01
        if worker.look_up(f"unknown {number}", known=False):
            taken.append(worker.clock.time)
    per_second = len(taken) / 20 * workers
    assert 10 <= per_second <= 20 * 1.2
    if workers <= 20:
        busiest = max(sum(start <= at < start + 0.999 for at in taken) for start in taken)
        assert busiest * workers <= 20


def test_known_keys_give_their_places_back_and_later_need_none() -> None:
    worker = Worker()
    assert all(worker.look_up(f"known {number}", known=True) for number in range(500))
    for number in range(20):
        assert worker.look_up(f"unknown {number}", known=False)
    assert not worker.look_up("one more", known=False)
    assert not worker.look_up("a new customer", known=True)
    assert all(worker.look_up(f"known {number}", known=True) for number in range(500))


def test_the_snapshot_is_asked_once_about_a_key_that_it_knows() -> None:
    asked: list[str] = []
    keys = UnknownKeys(SharedState(None).changes, 1, FakeClock(), is_known=lambda key: asked.append(key) or True)  # type: ignore[func-returns-value]
    for _ in range(3):
        keys.found("a", keys.enter("a"))
    assert asked == ["a"]


def test_a_known_key_that_is_gone_needs_a_place_again() -> None:
    worker = Worker()
    worker.look_up("a", known=True)
    worker.look_up("a", known=False)
    for number in range(19):
        worker.look_up(f"unknown {number}", known=False)
    worker.look_up("a", known=False)
    assert not worker.look_up("a", known=True)


def test_who_waits_gets_a_place_as_soon_as_one_is_given_back() -> None:
    keys = UnknownKeys(SharedState(None).changes, 1, FakeClock(), patience_s=600.0)
    places = [keys.enter(f"known {number}") for number in range(20)]
    entered = threading.Event()

    def wait() -> None:
        keys.enter("a new customer")
        entered.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert not entered.wait(0.05)
    keys.found("known 0", places[0])
    assert entered.wait(30)


def test_who_waits_gets_a_place_when_the_second_is_over() -> None:
    keys = UnknownKeys(SharedState(None).changes, 1, time.monotonic, patience_s=30.0)
    began = time.monotonic()
    for number in range(20):
        keys.enter(f"unknown {number}")
    keys.enter("a new customer")
    assert 0.9 < time.monotonic() - began < 25


def test_memory_is_bounded() -> None:
    worker = Worker()
    for number in range(30_000):
        worker.keys.missed(f"unknown {number}", 1.0, 0)
        worker.keys.found(f"known {number}", 0.0)
    assert len(worker.keys._unknown) <= 10_000
    assert len(worker.keys._known) <= 20_000


def test_only_four_wait_and_the_rest_are_refused_at_once() -> None:
    keys = UnknownKeys(SharedState(None).changes, 1, FakeClock(), patience_s=600.0)
    places = [keys.enter(f"unknown {number}") for number in range(20)]
    asked = threading.Semaphore(0)
    waiters = [
        threading.Thread(target=keys.enter, args=(f"waits {number}", asked.release), daemon=True) for number in range(4)
    ]
    for waiter in waiters:
        waiter.start()
    assert all(asked.acquire(timeout=30) for _ in waiters)
    ends = time.monotonic() + 30
    while keys._waiting < 4 and time.monotonic() < ends:
        time.sleep(0.01)
    with pytest.raises(TooManyUnknown):
        keys.enter("one more")
    for number in range(4):
        keys.found(f"unknown {number}", places[number])
    for waiter in waiters:
        waiter.join(30)
    assert not any(waiter.is_alive() for waiter in waiters)


def test_while_the_snapshot_cannot_tell_any_number_of_customers_wait_their_turn() -> None:
    keys = UnknownKeys(SharedState(None).changes, 1, FakeClock(), is_known=lambda _: None, patience_s=600.0)
    places = [keys.enter(f"customer {number}") for number in range(20)]
    entered: list[float | None] = []

    def enter(number: int) -> None:
        place = keys.enter(f"customer {number}")
        entered.append(place)
        keys.found(f"customer {number}", place)

    waiters = [threading.Thread(target=enter, args=(number,), daemon=True) for number in range(20, 36)]
    for waiter in waiters:
        waiter.start()
    ends = time.monotonic() + 30
    while keys._waiting < len(waiters) and time.monotonic() < ends:
        time.sleep(0.01)
    keys.found("customer 0", places[0])
    for waiter in waiters:
        waiter.join(30)
    assert len(entered) == len(waiters)


def test_who_may_not_wait_is_told_so_only_where_no_place_is_free() -> None:
    keys = UnknownKeys(SharedState(None).changes, 1, FakeClock(), patience_s=600.0)

    def refuse() -> None:
        raise PermissionError

    for number in range(20):
        keys.enter(f"unknown {number}", refuse)
    with pytest.raises(PermissionError):
        keys.enter("one more", refuse)
