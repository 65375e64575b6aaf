"""The elector while the database's clock is set forward and back: one leads, and takeover takes no longer for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from failover.config import Config
from failover.elector import Elector, Surroundings
from failover.errors import NotLeading
from failover.memory import MemoryLeaseStore
from failover.model import Identity, Kind
from tests.support.clock import FakeClock

CONFIG = Config()
YEARS = 3 * 365 * 86_400.0
JUMPS = [600.0, -600.0, 4.0, -4.0, YEARS, -YEARS]


class Cluster:
    """Two nodes at one database whose clock is its own."""

    def __init__(self) -> None:
        self.database, self.here = FakeClock(1_764_000_000.0), FakeClock(50.0)
        self.store = MemoryLeaseStore(self.database)
        self.around: dict[str, Any] = {}
        self.one, self.two = self.node(1), self.node(2)

    def node(self, rank: int) -> Elector:
        return Elector(
            Identity.new(f"n{rank}", rank), CONFIG, self.store, self.here, lambda: Surroundings(**self.around)
        )

    def pass_time(self, seconds: float, *alive: Elector) -> None:
        """Each of those alive looks twice a second; there is never more than one leader."""
        for _ in range(int(seconds / CONFIG.poll)):
            self.database.move(CONFIG.poll)
            self.here.move(CONFIG.poll)
            for node in alive:
                node.tick()
            assert not (self.one.is_leader() and self.two.is_leader())

    def commits(self, node: Elector) -> bool:
        """Whether a fenced transaction of `node` could commit."""
        try:
            with self.store.fenced(node.me, node.trust.epoch or 0):
                return True
        except NotLeading:
            return False


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.pass_time(20, made.one, made.two)
    assert made.one.is_leader()
    return made


@pytest.mark.parametrize("jump", JUMPS)
def test_a_leader_that_lives_keeps_the_lease_and_commits_soon_after(cluster: Cluster, jump: float) -> None:
    cluster.database.move(jump)
    cluster.pass_time(CONFIG.heartbeat_interval + CONFIG.poll, cluster.one, cluster.two)
    assert cluster.commits(cluster.one)
    cluster.pass_time(60, cluster.one, cluster.two)
    assert cluster.one.is_leader()
    assert cluster.store.failovers == []


@pytest.mark.parametrize("jump", JUMPS)
def test_a_leader_that_died_is_succeeded_within_the_time_out(cluster: Cluster, jump: float) -> None:
    cluster.database.move(jump)
    cluster.pass_time(CONFIG.heartbeat_timeout + 2 * CONFIG.poll, cluster.two)
    assert cluster.two.is_leader()
    assert not cluster.commits(cluster.one)
    [failover] = cluster.store.failovers
    assert failover.kind is Kind.TAKEOVER
    assert 0 < failover.gap_s <= CONFIG.heartbeat_timeout + 2 * CONFIG.poll


@pytest.mark.parametrize("jump", JUMPS)
def test_a_leader_that_resigned_is_succeeded_at_once(cluster: Cluster, jump: float) -> None:
    cluster.around["stop_requested"] = True
    cluster.database.move(jump)
    cluster.one.tick()
    cluster.around.clear()
    cluster.pass_time(CONFIG.poll, cluster.two)
    assert cluster.two.is_leader()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_newcomer_waits_out_a_lease_that_it_saw_before_the_clock_was_set(cluster: Cluster, jump: float) -> None:
    late = cluster.node(3)
    late.tick()
    cluster.database.move(jump)
    cluster.pass_time(CONFIG.heartbeat_timeout - CONFIG.poll, late)
    assert not late.is_leader()
    cluster.pass_time(CONFIG.stagger + 2 * CONFIG.poll, late)
    assert late.is_leader()


def test_a_lease_that_changed_between_the_look_and_the_try_is_not_taken(cluster: Cluster) -> None:
    cluster.database.move(-600)
    cluster.pass_time(CONFIG.heartbeat_timeout - CONFIG.poll, cluster.two)
    cluster.here.move(CONFIG.heartbeat_timeout)
    cluster.two._watch()
    assert cluster.two._lease_watch.free(cluster.here()) is not None
    assert cluster.store.renew(cluster.one.me, 1, CONFIG.heartbeat_timeout), "it was frozen, and comes back first"
    cluster.two._acquire()
    assert not cluster.two.is_leader()


@pytest.mark.parametrize("jump", JUMPS)
def test_the_pause_between_two_failbacks_is_counted_by_the_backups_own_clock(cluster: Cluster, jump: float) -> None:
    """Rank 1 is handed the lease and never renews it, while the clock is set between two failbacks."""
    flapping = Identity.new("n1", 1)
    cluster.pass_time(CONFIG.heartbeat_timeout + 1, cluster.two)
    cluster.around.update(primary=flapping, primary_beat_age=0.1, primary_healthy_since=cluster.here() - 100)
    handed: list[float] = []
    for second in range(120):
        if second == 50:
            cluster.database.move(jump)
        before = len(cluster.store.failovers)
        cluster.pass_time(1.0, cluster.two)
        if [f.kind for f in cluster.store.failovers[before:]] == [Kind.FAILBACK]:
            handed.append(cluster.here())
    assert len(handed) == 3
    assert all(later - earlier >= CONFIG.failback_delay for earlier, later in itertools.pairwise(handed))


def test_a_failback_of_a_moment_to_come_holds_up_no_other(cluster: Cluster) -> None:
    """The clock was years ahead when it was recorded, and a process that has just started reads it."""
    cluster.database.move(YEARS)
    lease = cluster.store.watch()
    assert lease is not None
    cluster.store.hand_over(lease, cluster.one.me, CONFIG.heartbeat_timeout, Kind.FAILBACK)
    cluster.database.move(-YEARS)
    cluster.two = cluster.node(2)
    cluster.pass_time(2 * CONFIG.heartbeat_timeout, cluster.two)
    assert cluster.two.is_leader()
    flapping = Identity.new("n1", 1)
    cluster.around.update(primary=flapping, primary_beat_age=0.1, primary_healthy_since=cluster.here() - 100)
    cluster.pass_time(CONFIG.failback_delay + 1, cluster.two)
    assert [f.kind for f in cluster.store.failovers].count(Kind.FAILBACK) == 2
