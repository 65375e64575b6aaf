"""When a lease is over and who is alive, while the database's clock is set forward and back."""

from __future__ import annotations

import pytest

from failover.heartbeat import Beat, PrimaryHealth, Report, doubled
from failover.liveness import BeatWatch, LeaseWatch
from failover.memory import MemoryHeartbeatStore, MemoryLeaseStore
from failover.model import Identity
from tests.support.clock import FakeClock

ONE, TWO = Identity.new("n1", 1), Identity.new("n2", 2)
TIMEOUT, TOLERANCE = 6.0, 0.25
REPORT = Report(role="standby", state="STANDBY")
YEARS = 3 * 365 * 86_400.0
JUMPS = [600.0, -600.0, 7.0, -7.0, YEARS, -YEARS]


class Scene:
    """A lease and heartbeats on a database whose clock can be set, and one process that watches them."""

    def __init__(self) -> None:
        self.database, self.here = FakeClock(1_764_000_000.0), FakeClock(50.0)
        self.leases, self.beats = MemoryLeaseStore(self.database), MemoryHeartbeatStore(self.database)
        self.lease_watch, self.beat_watch = LeaseWatch(TOLERANCE), BeatWatch(TIMEOUT)

    def move(self, seconds: float) -> None:
        self.database.move(seconds)
        self.here.move(seconds)

    def is_free(self, took: float = 0.0) -> bool:
        """What a look at the lease finds whose answer takes `took` seconds."""
        asked, lease = self.here(), self.leases.watch()
        self.move(took)
        self.lease_watch.observe(lease, asked, self.here(), TIMEOUT)
        return self.lease_watch.free(self.here()) is not None

    def ages(self) -> dict[str, float]:
        return {beat.identity.node: beat.age_s for beat in self.look()}

    def look(self) -> tuple[Beat, ...]:
        return self.beat_watch.observe(self.beats.read(), self.here())


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_lease_that_is_renewed_is_somebodys_whatever_the_clock_says(scene: Scene, jump: float) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    for second in range(30):
        if second == 10:
            scene.database.move(jump)
        if second % 2 == 0:
            assert scene.leases.renew(ONE, 1, TIMEOUT)
        if second == 10:
            scene.database.move(-jump / 2)
        assert not scene.is_free()
        scene.move(1.0)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_lease_that_nobody_renews_is_free_a_time_out_after_it_was_first_seen(scene: Scene, jump: float) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    assert not scene.is_free()
    scene.database.move(jump)
    for _ in range(6):
        assert not scene.is_free(), "the clock alone ends nothing, and makes nothing last"
        scene.move(1.0)
    assert scene.is_free()


def test_a_lease_that_ended_long_ago_is_free_at_first_sight(scene: Scene) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    scene.move(TIMEOUT + 0.1)
    assert scene.is_free()
    found = scene.lease_watch.free(scene.here())
    assert found is not None
    assert found.silent_s == pytest.approx(TIMEOUT + 0.1)


def test_while_the_clock_is_steady_a_newcomer_waits_no_longer_than_the_lease_lasts(scene: Scene) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    scene.move(5.0)
    assert not scene.is_free()
    scene.move(1.1)
    assert scene.is_free()


def test_a_lease_that_was_over_stays_so_when_the_clock_is_set_back(scene: Scene) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    scene.move(TIMEOUT + 0.1)
    assert scene.is_free()
    scene.database.move(-600)
    assert scene.is_free()
    assert scene.leases.renew(ONE, 1, TIMEOUT)
    assert not scene.is_free(), "its holder is back"


def test_a_clock_that_jumped_in_the_pause_in_which_the_lease_was_renewed_is_not_believed(scene: Scene) -> None:
    """The renewal was before the jump or after it: nobody can know."""
    scene.leases.acquire(ONE, TIMEOUT)
    assert not scene.is_free()
    scene.move(0.5)
    scene.leases.renew(ONE, 1, TIMEOUT)
    scene.database.move(600)
    assert not scene.is_free()
    scene.move(5.9)
    assert not scene.is_free()
    scene.move(0.1)
    assert scene.is_free()


def test_a_clock_that_was_set_back_while_the_lease_was_renewed_and_put_right_is_not_believed(scene: Scene) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    assert not scene.is_free()
    scene.database.move(-600)
    scene.leases.renew(ONE, 1, TIMEOUT)
    assert not scene.is_free()
    scene.database.move(600)
    assert not scene.is_free()


def test_after_a_slow_look_the_clock_is_believed_less(scene: Scene) -> None:
    """What the clock did in two seconds without an answer could be anything."""
    scene.leases.acquire(ONE, TIMEOUT)
    assert not scene.is_free()
    scene.move(1.0)
    scene.leases.renew(ONE, 1, TIMEOUT)
    assert not scene.is_free(took=2.0)
    scene.move(4.1)
    assert not scene.is_free()
    scene.move(1.9)
    assert scene.is_free()


def test_a_resigned_lease_is_free_at_once_whatever_the_clock_did(scene: Scene) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    assert not scene.is_free()
    scene.database.move(-YEARS)
    assert scene.leases.resign(ONE, 1)
    scene.database.move(700)
    assert scene.is_free()
    found = scene.lease_watch.free(scene.here())
    assert found is not None
    assert found.silent_s < 1.0, "and the gap is what this process saw"


def test_a_renewal_after_the_clock_was_set_back_is_no_resignation(scene: Scene) -> None:
    scene.leases.acquire(ONE, TIMEOUT)
    scene.database.move(-600)
    assert scene.leases.renew(ONE, 1, TIMEOUT)
    lease = scene.leases.watch()
    assert lease is not None
    assert lease.expires_at < lease.acquired_at
    assert not lease.resigned
    assert not scene.is_free()


def test_where_nobody_ever_led_nothing_is_free_and_nothing_is_held(scene: Scene) -> None:
    assert not scene.is_free()
    assert scene.lease_watch.free_at is None


@pytest.mark.parametrize("jump", JUMPS)
def test_a_process_that_beats_is_alive_and_one_that_does_not_is_dead_whatever_the_clock_says(
    scene: Scene, jump: float
) -> None:
    for identity in (ONE, TWO):
        scene.beats.write(identity, REPORT)
    scene.look()
    for second in range(20):
        if second == 3:
            scene.database.move(jump)
        scene.move(1.0)
        scene.beats.write(TWO, REPORT)
        ages = scene.ages()
        # Set back, its first beat is older than the one before it: only the next shows that it goes on.
        assert ages["n2"] <= (2.0 if second == 3 else 1.0)
        assert ages["n1"] == second + 1.0


def test_a_beat_of_a_moment_to_come_is_not_fresh_before_it_changes(scene: Scene) -> None:
    scene.beats.write(ONE, REPORT)
    scene.database.move(-300)
    [beat] = scene.look()
    assert not beat.is_fresh(TIMEOUT)
    scene.move(1.0)
    scene.beats.write(ONE, REPORT)
    assert not scene.look()[0].is_fresh(TIMEOUT), "older than what was seen: that is the clock, or a restore"
    scene.move(1.0)
    scene.beats.write(ONE, REPORT)
    assert scene.look()[0].is_fresh(TIMEOUT)


def test_at_first_sight_a_young_beat_is_fresh_and_ages_from_what_is_stored(scene: Scene) -> None:
    scene.beats.write(ONE, REPORT)
    scene.move(2.0)
    assert scene.ages() == {"n1": 2.0}
    scene.database.move(-600)
    scene.move(4.5)
    [beat] = scene.look()
    assert beat.age_s == 6.5
    assert not beat.is_fresh(TIMEOUT)


def test_a_table_that_was_restored_shows_nobody_alive(scene: Scene) -> None:
    scene.beats.write(ONE, REPORT)
    older = dict(scene.beats._rows)
    scene.move(1.0)
    scene.beats.write(ONE, REPORT)
    scene.look()
    scene.move(10.0)
    scene.beats._rows = older
    assert scene.ages() == {"n1": 10.0}


def test_a_beat_that_changed_in_a_long_pause_is_as_old_as_is_stored(scene: Scene) -> None:
    """A loop that looks every five minutes: the primary died four minutes ago, after another beat."""
    scene.beats.write(ONE, REPORT)
    scene.look()
    scene.move(60.0)
    scene.beats.write(ONE, REPORT)
    scene.move(240.0)
    assert scene.ages() == {"n1": 240.0}


def test_after_a_long_pause_a_clock_that_was_set_back_makes_a_beat_no_younger_than_the_pause(scene: Scene) -> None:
    scene.beats.write(ONE, REPORT)
    scene.look()
    scene.move(60.0)
    scene.beats.write(ONE, REPORT)
    scene.move(240.0)
    scene.database.move(-290)
    assert scene.ages() == {"n1": 300.0}


def test_the_age_of_a_queue_grows_by_the_watchers_clock(scene: Scene) -> None:
    scene.beats.write(ONE, Report(role="standby", state="STANDBY", queue=3, queue_oldest_s=2.0))
    scene.look()
    scene.database.move(-600)
    scene.move(1.5)
    assert scene.look()[0].report.queue_oldest_s == pytest.approx(3.5)


def test_a_primary_that_beats_stays_healthy_while_the_clock_is_set(scene: Scene) -> None:
    health = PrimaryHealth(TIMEOUT)
    for second in range(40):
        if second in (10, 20):
            scene.database.move(-600 if second == 10 else YEARS)
        scene.beats.write(ONE, REPORT)
        health.observe(scene.look(), scene.here())
        scene.move(1.0)
    assert (health.primary, health.healthy_since) == (ONE, 50.0)


def test_a_dead_primary_does_not_come_to_life_when_the_clock_is_set_back(scene: Scene) -> None:
    health = PrimaryHealth(TIMEOUT)
    scene.beats.write(ONE, REPORT)
    for _ in range(10):
        health.observe(scene.look(), scene.here())
        scene.move(1.0)
    assert health.primary is None
    scene.database.move(-12)
    for _ in range(20):
        health.observe(scene.look(), scene.here())
        assert health.primary is None
        scene.move(1.0)


def test_a_dead_rival_of_ones_rank_does_not_come_to_life_either(scene: Scene) -> None:
    scene.beats.write(Identity.new("another", 1), REPORT)
    for _ in range(8):
        scene.beats.write(ONE, REPORT)
        scene.look()
        scene.move(1.0)
    scene.database.move(-9)
    assert doubled(scene.look(), TIMEOUT) == {}


def test_since_when_a_process_is_alive_begins_anew_after_a_gap(scene: Scene) -> None:
    for _ in range(3):
        scene.beats.write(ONE, REPORT)
        scene.look()
        scene.move(2.0)
    assert scene.beat_watch.alive_since(ONE.instance) == 50.0
    scene.move(10.0)
    scene.beats.write(ONE, REPORT)
    scene.look()
    assert scene.beat_watch.alive_since(ONE.instance) == 66.0


def test_two_processes_of_one_node_are_twins_once_they_have_beaten_side_by_side_for_longer_than_a_deploy(
    scene: Scene,
) -> None:
    old, new, other = Identity.new("n1", 1), Identity.new("n1", 1), Identity.new("n2", 2)
    said: list[dict[str, int]] = []
    for second in range(100):
        for identity in (old, other) if second < 10 else (old, new, other):
            scene.beats.write(identity, REPORT)
        said.append(scene.beat_watch.twins(scene.look(), scene.here(), 66.0))
        scene.move(1.0)
    assert said[76] == {}
    assert said[77:] == [{"n1": 2}] * 23


@pytest.mark.parametrize("state", ["STANDBY", "STOPPING"])
def test_an_old_process_that_ends_is_no_twin(scene: Scene, state: str) -> None:
    old, new = Identity.new("n1", 1), Identity.new("n1", 1)
    for second in range(100):
        if second < 60 or state == "STOPPING":
            scene.beats.write(old, Report(role="standby", state=state if second >= 60 else "STANDBY"))
        scene.beats.write(new, REPORT)
        assert scene.beat_watch.twins(scene.look(), scene.here(), 66.0) == {}
        scene.move(1.0)


def long_gone(scene: Scene) -> list[str]:
    return [beat.identity.node for beat in scene.beat_watch.long_gone(scene.look(), scene.here(), 7 * 86_400.0, 3600.0)]


@pytest.mark.parametrize("jump", JUMPS)
def test_who_was_watched_for_too_short_a_time_has_not_long_gone_whatever_the_clock_says(
    scene: Scene, jump: float
) -> None:
    for identity in (ONE, TWO):
        scene.beats.write(identity, REPORT)
    scene.look()
    scene.database.move(jump)
    for _ in range(10):
        scene.move(350.0)
        scene.beats.write(TWO, REPORT)
        assert long_gone(scene) == []


@pytest.mark.parametrize(("age", "gone"), [(-YEARS, True), (60.0, False), (8 * 86_400.0, True)])
def test_a_beat_that_was_old_or_of_a_moment_to_come_is_forgotten_once_it_was_watched(
    scene: Scene, age: float, gone: bool
) -> None:
    scene.beats.write(ONE, REPORT)
    scene.database.move(age)
    scene.look()
    scene.move(3600.0)
    assert long_gone(scene) == (["n1"] if gone else [])
