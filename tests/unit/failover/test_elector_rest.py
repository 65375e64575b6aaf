"""A node that nobody asks: when its lease's thread has to do something, and what it need not ask the database for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.config import Config
from failover.elector import Elector, Surroundings
from failover.errors import StoreUnavailable
from failover.exchange import BeatAnswer
from failover.memory import MemoryLeaseStore
from failover.model import Identity, Kind, Lease, State
from tests.support.clock import FakeClock

CONFIG = Config(probe_interval=0.0)
ONE, TWO = Identity.new("n1", 1), Identity.new("n2", 2)


class Counted(MemoryLeaseStore):
    """A store that counts the looks at it, and fails while `is_away`."""

    looks, is_away = 0, False

    def watch(self) -> Lease | None:
        self.looks += 1
        if self.is_away:
            raise StoreUnavailable("gone")
        return super().watch()


class Scene:
    """Two nodes that nobody asks, on one store and one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = Counted(self.clock)
        self.stops = False
        self.one, self.two = self._elector(ONE), self._elector(TWO)
        self.one.tick()
        self.two.tick()
        self.store.looks = 0

    def _elector(self, me: Identity) -> Elector:
        around = lambda: Surroundings(stop_requested=self.stops and me is ONE)  # noqa: E731
        return Elector(me, CONFIG, self.store, self.clock, around, is_close=lambda: False)

    def overhears(self, node: Elector) -> None:
        """The lease comes along with a beat."""
        asked, before = self.clock(), self.store.looks
        node.receive(BeatAnswer((), self.store.watch(), asked, self.clock()))
        self.store.looks = before

    def rests(self, *nodes: Elector) -> float:
        """The clock moves to the first moment at which one of them has something to do; gives for how long."""
        seconds = min(node.rest_s() for node in nodes)
        self.clock.move(seconds)
        return seconds


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_leader_whose_beats_bring_the_lease_asks_for_nothing_and_renews_in_time(scene: Scene) -> None:
    for _ in range(20):
        scene.overhears(scene.one)
        scene.one.tick()
        assert scene.rests(scene.one) <= CONFIG.heartbeat_interval
        assert scene.one.is_leader()
    assert scene.store.looks == 0
    assert scene.one.epoch_seen == 1


def test_a_leader_that_hears_no_beats_looks_by_itself(scene: Scene) -> None:
    for _ in range(20):
        scene.rests(scene.one)
        scene.one.tick()
        assert scene.one.is_leader()
    assert scene.store.looks >= 9


def test_a_standby_takes_the_lease_in_the_moment_in_which_it_ends(scene: Scene) -> None:
    scene.overhears(scene.two)
    scene.two.tick()
    died_at, rested = scene.clock(), 0
    while not scene.two.is_leader():
        scene.rests(scene.two)
        scene.two.tick()
        rested += 1
    assert scene.clock() - died_at == pytest.approx(CONFIG.heartbeat_timeout, abs=0.02)
    assert rested <= 5
    (failover,) = scene.store.failovers
    assert (failover.kind, failover.gap_s) == (Kind.TAKEOVER, pytest.approx(CONFIG.heartbeat_timeout, abs=0.02))


def test_a_standby_looks_at_once_where_there_is_news_and_takes_what_was_resigned(scene: Scene) -> None:
    scene.overhears(scene.two)
    scene.stops = True
    scene.one.tick(has_news=True)
    scene.two.tick(has_news=True)  # what was overheard before is older than the news
    assert scene.two.is_leader()
    assert scene.two.epoch_seen == 2


def test_a_resignation_that_nobody_told_of_is_found_with_the_next_beat(scene: Scene) -> None:
    scene.stops = True
    scene.one.tick(has_news=True)
    scene.clock.move(CONFIG.heartbeat_interval)
    scene.overhears(scene.two)
    scene.two.tick()
    assert scene.two.is_leader()


def test_what_was_overheard_before_a_node_acted_is_not_believed(scene: Scene) -> None:
    before = BeatAnswer(
        (), replace(scene.store.watch() or pytest.fail("no lease"), holder=TWO), scene.clock(), scene.clock()
    )
    scene.clock.move(CONFIG.heartbeat_interval)
    scene.overhears(scene.one)
    scene.one.tick()  # renews
    scene.one.receive(before)
    scene.one.tick()
    assert scene.one.is_leader()


def test_a_standby_that_hears_no_beats_asks_by_itself_and_says_that_the_store_is_away(scene: Scene) -> None:
    scene.store.is_away = True
    assert scene.rests(scene.two) <= CONFIG.heartbeat_interval + CONFIG.poll
    scene.two.tick()
    assert scene.two.state is State.ISOLATED
    assert scene.two.rest_s() == CONFIG.poll, "and asks closely until it is back"


def test_a_node_that_is_asked_looks_at_every_poll(scene: Scene) -> None:
    node = Elector(TWO, CONFIG, scene.store, scene.clock)
    for _ in range(3):
        scene.overhears(node)
        node.tick()
        assert node.rest_s() == CONFIG.poll
    assert scene.store.looks == 3
