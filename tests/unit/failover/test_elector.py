"""The elector: gather, decide, act; with clocks that are moved by hand and a store that can be made to fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from failover.config import Config
from failover.elector import Elector, Surroundings
from failover.errors import StoreBusy, StoreUnavailable
from failover.lease import Trust
from failover.memory import MemoryLeaseStore
from failover.model import Identity, Kind, Role, State
from tests.support.clock import FakeClock

CONFIG = Config()


class Flaky(MemoryLeaseStore):
    """A store that fails while `error` is set, and takes `slow` seconds for each renewal."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.clock, self.error, self.slow = clock, None, 0.0
        self.error: Exception | None

    def watch(self) -> Any:
        if self.error:
            raise self.error
        return super().watch()

    def renew(self, me: Identity, epoch: int, timeout: float) -> bool:
        if self.error:
            raise self.error
        renewed = super().renew(me, epoch, timeout)
        self.clock.move(self.slow)
        return renewed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Flaky:
    return Flaky(clock)


@pytest.fixture
def around() -> dict[str, Any]:
    return {}


@pytest.fixture
def elector(clock: FakeClock, store: Flaky, around: dict[str, Any]) -> Callable[[int], Elector]:
    def make(rank: int, **given: Any) -> Elector:
        return Elector(Identity.new(f"n{rank}", rank), CONFIG, store, clock, lambda: Surroundings(**around), **given)

    return make


def test_a_process_alone_comes_to_lead(elector: Any) -> None:
    one = elector(1)
    one.tick()
    assert one.is_leader()
    assert (one.state, one.role, one.epoch_seen) == (State.LEADING, Role.PRIMARY, 1)


def test_a_leader_renews_at_each_interval_and_keeps_its_epoch(elector: Any, clock: FakeClock) -> None:
    one = elector(1)
    for _ in range(40):
        one.tick()
        clock.move(CONFIG.poll)
        assert one.is_leader()
    assert one.epoch_seen == 1


def test_leading_ends_by_itself_when_renewals_fail(elector: Any, store: Flaky, clock: FakeClock) -> None:
    one = elector(1)
    one.tick()
    store.error = StoreUnavailable("gone")
    for _ in range(10):
        one.tick()
        assert one.is_leader()
        clock.move(0.5)
    clock.move(0.5)
    assert not one.is_leader()
    assert one.role is Role.STANDBY
    one.tick()
    assert (one.state, one.role) == (State.ISOLATED, Role.ISOLATED)
    assert one.trouble == "StoreUnavailable: gone"


def test_a_frozen_leader_does_not_lead_when_it_wakes(elector: Any, clock: FakeClock) -> None:
    one = elector(1)
    one.tick()
    clock.move(CONFIG.trust)
    assert not one.is_leader()


def test_a_slow_successful_renewal_does_not_extend_the_trust_window(
    elector: Any, store: Flaky, clock: FakeClock
) -> None:
    one = elector(1)
    one.tick()
    clock.move(1.5)
    store.slow = 3.0
    sent = clock()
    one.tick()
    assert one.trust.until == sent + CONFIG.trust
    clock.move(CONFIG.trust - 3.0)
    assert not one.is_leader()


def test_a_lease_that_another_took_ends_trust_at_the_next_look(elector: Any, store: Flaky) -> None:
    one, two = elector(1), elector(2)
    one.tick()
    lease = store.watch()
    store.hand_over(lease, two.me, 6.0, Kind.SWITCHOVER)
    one.tick()
    assert not one.is_leader()
    assert one.state is State.STANDBY
    two.tick()
    assert two.is_leader()
    assert (two.role, two.epoch_seen) == (Role.BACKUP, 2)


def test_a_renewal_that_changes_no_row_steps_down_at_once(
    elector: Any, store: Flaky, clock: FakeClock, monkeypatch: Any
) -> None:
    one = elector(1)
    one.tick()
    monkeypatch.setattr(store, "renew", lambda *_: False)
    clock.move(1.5)
    one.tick()
    assert not one.is_leader()


def test_a_lease_whose_row_is_gone_is_lost(elector: Any, store: Flaky) -> None:
    one = elector(1)
    one.tick()
    store._row = None
    one.tick()
    assert one.epoch_seen == 2, "taken again, above every epoch seen"


def test_a_database_restored_from_a_backup_cannot_use_an_epoch_again(
    elector: Any, store: Flaky, clock: FakeClock
) -> None:
    one = elector(1, epoch_seen=41)
    one.tick()
    assert store.watch().epoch == 42  # type: ignore[union-attr]


def test_a_leader_that_stops_resigns_and_stays_out(
    elector: Any, store: Flaky, around: dict[str, Any], clock: FakeClock
) -> None:
    one, two = elector(1), elector(2)
    one.tick()
    around["stop_requested"] = True
    one.tick()
    for _ in range(20):
        clock.move(1.0)
        one.tick()
        assert not one.is_leader()
    assert store.watch().resigned  # type: ignore[union-attr]
    around.clear()
    two.tick()
    clock.move(CONFIG.probe_interval)
    two.tick()
    assert two.is_leader()
    assert two.epoch_seen == 2


def test_a_lease_that_was_handed_over_just_before_the_stop_is_resigned(
    elector: Any, store: Flaky, around: dict[str, Any], clock: FakeClock
) -> None:
    one, two = elector(1), elector(2)
    two.tick()
    clock.move(CONFIG.probe_interval)
    two.tick()
    assert store.hand_over(store.watch(), one.me, CONFIG.heartbeat_timeout, Kind.FAILBACK) == 2  # type: ignore[arg-type]
    around["stop_requested"] = True
    one.tick()
    assert not one.is_leader()
    assert store.watch().resigned  # type: ignore[union-attr]


def test_rank_2_takes_over_within_a_poll_of_the_timeout(elector: Any, clock: FakeClock) -> None:
    one, two, three = elector(1), elector(2), elector(3)
    one.tick()
    passed = 0.0
    while not two.is_leader():
        assert not three.is_leader()
        clock.move(0.5)
        passed += 0.5
        three.tick()
        two.tick()
    assert CONFIG.heartbeat_timeout <= passed <= CONFIG.heartbeat_timeout + 2 * CONFIG.poll


def test_after_an_outage_the_one_that_led_goes_on_with_its_epoch(elector: Any, store: Flaky, clock: FakeClock) -> None:
    one, two = elector(1), elector(2)
    one.tick()
    two.tick()
    store.error = StoreUnavailable("restarting")
    for _ in range(40):
        clock.move(0.5)
        one.tick()
        two.tick()
    assert not one.is_leader()
    store.error = None
    for _ in range(3):
        two.tick()
        one.tick()
        clock.move(0.5)
    assert one.is_leader()
    assert not two.is_leader()
    assert one.epoch_seen == 1
    assert store.failovers == []


def test_a_busy_store_is_not_an_outage(elector: Any, store: Flaky, clock: FakeClock) -> None:
    two = elector(2)
    two.tick()
    since = two.ledger_since
    store.error = StoreBusy("locked")
    two.tick()
    assert two.ledger_since == since is not None


def test_a_backup_hands_back_to_a_healthy_primary(
    elector: Any, store: Flaky, clock: FakeClock, around: dict[str, Any]
) -> None:
    one, two = elector(1), elector(2)
    two.tick()
    clock.move(2.0)
    two.tick()
    assert two.is_leader()
    around.update(primary=one.me, primary_beat_age=0.1, primary_healthy_since=clock(), pending=1)
    led_until_then = 0
    for tick in range(100):
        around["primary_beat_age"] = 0.1
        if tick == 80:
            around["pending"] = 0
        two.tick()
        one.tick()
        assert not (one.is_leader() and two.is_leader())
        led_until_then += two.is_leader()
        clock.move(0.5)
    assert one.is_leader()
    assert led_until_then == 80
    assert [(f.kind, f.from_node, f.to_node) for f in store.failovers] == [(Kind.FAILBACK, "n2", "n1")]


def test_a_flapping_primary_gets_one_failback_per_delay(
    elector: Any, store: Flaky, clock: FakeClock, around: dict[str, Any]
) -> None:
    one, two = elector(1), elector(2)
    around.update(primary=one.me, primary_beat_age=0.1, primary_healthy_since=clock() - 100)
    for _ in range(240):  # two minutes in which rank 1 is handed the lease and never renews it
        two.tick()
        clock.move(0.5)
    moments = [f.at for f in store.failovers if f.kind is Kind.FAILBACK]
    assert len(moments) >= 2
    assert all(later - earlier >= CONFIG.failback_delay for earlier, later in itertools.pairwise(moments))


def test_a_primary_that_has_just_stopped_is_not_handed_the_lease(
    elector: Any, store: Flaky, clock: FakeClock, around: dict[str, Any]
) -> None:
    one, two = elector(1), elector(2)
    one.tick()
    two.tick()
    store.resign(one.me, 1)
    died_at = clock()
    around.update(primary=one.me, primary_healthy_since=died_at - 1000)
    for _ in range(12):  # as long as its last beat counts as fresh
        clock.move(0.5)
        around["primary_beat_age"] = clock() - died_at
        two.tick()
    assert two.is_leader()
    assert [f.kind for f in store.failovers] == [Kind.TAKEOVER]


def test_two_processes_of_one_node_are_two() -> None:
    assert Identity.new("n1", 1).instance != Identity.new("n1", 1).instance


def test_a_second_process_of_the_same_node_waits_for_the_first(elector: Any) -> None:
    old, new = elector(1), elector(1)
    old.tick()
    new.tick()
    assert old.is_leader()
    assert not new.is_leader()


def test_trust_is_computed_at_the_point_of_use(clock: FakeClock) -> None:
    trust = Trust(5.0, clock)
    assert not trust.holds()
    assert (trust.epoch, trust.until, trust.renewed_at) == (None, None, None)
    trust.renewed(3, clock())
    assert trust.holds()
    clock.move(5.0)
    assert not trust.holds()
    assert trust.epoch == 3, "to be renewed if nobody took it"
    trust.lost()
    assert trust.epoch is None


def test_a_lease_that_a_restore_brought_back_is_not_taken_up_again(
    elector: Any, store: Flaky, clock: FakeClock
) -> None:
    one, two = elector(1), elector(2)
    one.tick()
    older = store._row
    store.hand_over(store.watch(), two.me, CONFIG.heartbeat_timeout, Kind.SWITCHOVER)
    one.tick()
    store._row = older
    one.tick()
    assert not one.is_leader(), "its epoch 1 has been used up by the switchover to epoch 2"
    clock.move(CONFIG.heartbeat_timeout + 1)
    one.tick()
    assert one.is_leader()
    assert one.epoch_seen == 3


def test_it_says_since_when_the_store_owes_it_an_answer(
    clock: FakeClock, store: Flaky, elector: Callable[[int], Elector], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, owed = elector(1), list[float | None]()

    def slow() -> Any:
        clock.move(3.0)
        owed.append(node.asking_since)
        raise StoreUnavailable("silent")

    monkeypatch.setattr(store, "watch", slow)
    asked_at = clock()
    node.tick()
    assert owed == [asked_at]
    assert node.asking_since is None
