"""What every lease store does: in memory, on SQLite, on Postgres."""

from __future__ import annotations

import threading

import pytest

from failover.errors import NotLeading
from failover.model import Free, Identity, Kind, Lease
from tests.support.failover_stores import Stores, in_database, in_memory

ONE, TWO = Identity.new("n1", 1), Identity.new("n2", 2)
YEARS = 3 * 365 * 86_400.0
JUMPS = [600.0, -600.0, YEARS, -YEARS]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        return in_memory()
    return in_database(request.getfixturevalue(f"{request.param}_url"))


def test_before_anyone_led_there_is_no_lease(stores: Stores) -> None:
    assert stores.leases.watch() is None


def test_the_first_epoch_is_1(stores: Stores) -> None:
    assert stores.leases.acquire(ONE, 6.0) == 1
    lease = stores.leases.watch()
    assert lease is not None
    assert (lease.holder, lease.epoch, lease.resigned) == (ONE, 1, False)
    assert 0 < lease.expires_in <= 6.0


def test_a_lease_that_is_good_cannot_be_taken(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    assert stores.leases.acquire(TWO, 6.0) is None
    assert stores.leases.watch().holder == ONE  # type: ignore[union-attr]


def test_its_holder_cannot_take_it_a_second_time_either(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    assert stores.leases.acquire(ONE, 6.0) is None


def test_a_lease_that_ended_is_taken_with_the_next_epoch(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(6.5)
    assert stores.leases.acquire(TWO, 6.0) == 2
    assert not stores.leases.renew(ONE, 1, 6.0)
    [(kind, before, after, gap)] = stores.failovers()
    assert (kind, before, after) == ("takeover", "n1", "n2")
    assert 6.5 <= gap < 20


def test_an_epoch_seen_elsewhere_is_not_used_again(stores: Stores) -> None:
    assert stores.leases.acquire(ONE, 6.0, epoch_seen=41) == 42
    stores.pass_time(7)
    assert stores.leases.acquire(ONE, 6.0, epoch_seen=7) == 43
    assert stores.failovers() == []


def test_a_renewal_lets_it_last_from_now(stores: Stores) -> None:
    stores.leases.acquire(ONE, 60.0)
    stores.pass_time(30)
    assert stores.leases.renew(ONE, 1, 60.0)
    assert stores.leases.watch().expires_in > 50  # type: ignore[union-attr]


def test_only_the_holder_with_its_epoch_renews(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    assert not stores.leases.renew(TWO, 1, 6.0)
    assert not stores.leases.renew(ONE, 2, 6.0)
    assert not stores.leases.renew(Identity.new("n1", 1), 1, 6.0), "another process of the same node"


def test_a_lease_that_ended_and_nobody_took_goes_on(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(60)
    assert stores.leases.renew(ONE, 1, 6.0)
    assert stores.leases.acquire(TWO, 6.0) is None


def test_resigning_ends_it_and_keeps_the_epoch(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    assert not stores.leases.resign(TWO, 1)
    assert stores.leases.resign(ONE, 1)
    assert not stores.leases.resign(ONE, 1)
    lease = stores.leases.watch()
    assert lease is not None
    assert lease.resigned
    assert lease.expires_in < 0
    stores.pass_time(0.3)
    assert stores.leases.acquire(TWO, 6.0) == 2
    [(_kind, _before, _after, gap)] = stores.failovers()
    assert 0.29 <= gap < 5, "counted from the resignation, not from a heartbeat"


def test_handing_over_moves_holder_and_epoch_at_once(stores: Stores) -> None:
    stores.leases.acquire(TWO, 6.0)
    lease = stores.leases.watch()
    assert lease is not None
    assert stores.leases.last_failback_age() is None
    assert stores.leases.hand_over(lease, ONE, 6.0, Kind.FAILBACK) == 2
    assert stores.leases.hand_over(lease, ONE, 6.0, Kind.FAILBACK) is None, "it is no longer what was read"
    assert not stores.leases.renew(TWO, 1, 6.0)
    assert stores.leases.renew(ONE, 2, 6.0)
    assert stores.failovers() == [("failback", "n2", "n1", 0.0)]
    stores.pass_time(10)
    assert 10 <= (stores.leases.last_failback_age() or 0) < 20


def test_the_fence_lets_only_the_leader_through(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    entered = []
    with stores.leases.fenced(ONE, 1):  # type: ignore[attr-defined]
        entered.append(1)
    assert entered
    for identity, epoch in ((TWO, 1), (ONE, 2), (ONE, 0)):
        with pytest.raises(NotLeading), stores.leases.fenced(identity, epoch):  # type: ignore[attr-defined]
            raise AssertionError("the fence was open")
    stores.pass_time(6.5)
    with pytest.raises(NotLeading), stores.leases.fenced(ONE, 1):  # type: ignore[attr-defined]
        raise AssertionError("the fence was open")


def test_of_many_that_try_at_once_one_gets_it(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(7)
    together = threading.Barrier(4)
    got: list[int | None] = []

    def race() -> None:
        me = Identity.new("n", 2)
        together.wait(30)
        got.append(stores.leases.acquire(me, 6.0))

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
    assert sorted(got, key=str) == [2, None, None, None]


def found(stores: Stores) -> Lease:
    lease = stores.leases.watch()
    assert lease is not None
    return lease


@pytest.mark.parametrize("jump", JUMPS)
def test_what_a_watcher_found_to_be_over_is_taken_whatever_the_clock_says(stores: Stores, jump: float) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(jump)
    free = Free(found(stores), 6.25)
    assert stores.leases.acquire(TWO, 6.0, 7, free) == 8
    assert stores.failovers() == [("takeover", "n1", "n2", 6.25)]
    assert stores.leases.acquire(ONE, 6.0, 0, free) is None, "it is another lease by now"


@pytest.mark.parametrize("jump", JUMPS)
def test_what_was_renewed_since_it_was_found_to_be_over_is_not_taken(stores: Stores, jump: float) -> None:
    stores.leases.acquire(ONE, 6.0)
    free = Free(found(stores), 6.0)
    stores.pass_time(jump)
    assert stores.leases.renew(ONE, 1, 6.0)
    assert stores.leases.acquire(TWO, 6.0, 0, free) is None
    assert found(stores).holder == ONE


def test_of_many_that_found_it_over_one_gets_it(stores: Stores) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(-600)
    free, together = Free(found(stores), 6.0), threading.Barrier(4)
    got: list[int | None] = []

    def race() -> None:
        together.wait(30)
        got.append(stores.leases.acquire(Identity.new("n", 2), 6.0, 0, free))

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
    assert sorted(got, key=str) == [2, None, None, None]


@pytest.mark.parametrize("jump", JUMPS)
def test_after_a_jump_the_holder_renews_and_commits_again(stores: Stores, jump: float) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(jump)
    assert stores.leases.renew(ONE, 1, 6.0)
    assert 0 < found(stores).expires_in <= 6.0
    assert not found(stores).resigned
    with stores.leases.fenced(ONE, 1):  # type: ignore[attr-defined]
        pass
    assert stores.leases.acquire(TWO, 6.0) is None


@pytest.mark.parametrize("jump", JUMPS)
def test_a_lease_is_resigned_and_handed_over_whatever_the_clock_says(stores: Stores, jump: float) -> None:
    stores.leases.acquire(ONE, 6.0)
    stores.pass_time(jump)
    assert stores.leases.hand_over(found(stores), TWO, 6.0, Kind.SWITCHOVER) == 2
    stores.pass_time(jump)
    assert stores.leases.resign(TWO, 2)
    assert found(stores).resigned
    stores.pass_time(-jump)
    assert found(stores).resigned
    assert stores.leases.acquire(ONE, 6.0) == 3, "an end that no clock ever said is over by every clock"
    assert not found(stores).resigned
    assert all(gap >= 0 for *_names, gap in stores.failovers())


def test_the_last_failback_is_the_one_of_the_highest_epoch(stores: Stores) -> None:
    stores.leases.acquire(TWO, 6.0)
    stores.leases.hand_over(found(stores), ONE, 6.0, Kind.FAILBACK)
    stores.pass_time(-YEARS)
    assert (stores.leases.last_failback_age() or 0) < -1.0, "of a moment to come"
    stores.leases.hand_over(found(stores), TWO, 6.0, Kind.SWITCHOVER)
    stores.leases.hand_over(found(stores), ONE, 6.0, Kind.FAILBACK)
    assert 0 <= (stores.leases.last_failback_age() or 0) < 20
