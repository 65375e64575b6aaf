"""What every heartbeat store does, and what is read from the beats."""

from __future__ import annotations

import pytest

from failover.beating import pending
from failover.heartbeat import Beat, PrimaryHealth, Report, doubled, youngest_alive
from failover.liveness import BeatWatch
from failover.model import Identity, State
from tests.support.failover_stores import Stores, in_database, in_memory

ONE, TWO = Identity.new("n1", 1), Identity.new("n2", 2)
REPORT = Report(
    role="standby", state="STANDBY", url="http://127.0.0.1:1", version="1.2", applied_seq=9, settings_digest="d"
)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        return in_memory()
    return in_database(request.getfixturevalue(f"{request.param}_url"))


def test_what_is_said_is_read_with_its_age(stores: Stores) -> None:
    stores.heartbeats.write(ONE, REPORT)
    stores.pass_time(3)
    [beat] = stores.heartbeats.read()
    assert (beat.identity, beat.report) == (ONE, REPORT)
    assert 3 <= beat.age_s < 20


def test_a_second_beat_replaces_the_first_and_keeps_the_start(stores: Stores) -> None:
    stores.heartbeats.write(ONE, REPORT)
    [first] = stores.heartbeats.read()
    stores.heartbeats.write(ONE, Report(role="primary", state="LEADING", queue=4, queue_oldest_s=2.0))
    [second] = stores.heartbeats.read()
    assert second.started_at == first.started_at
    assert (second.report.role, second.report.url, second.report.queue) == ("primary", None, 4)
    assert 2.0 <= (second.report.queue_oldest_s or 0) < 10


def test_beats_come_by_rank_and_the_freshest_first(stores: Stores) -> None:
    again = Identity.new("n1", 1)
    stores.heartbeats.write(TWO, REPORT)
    stores.heartbeats.write(ONE, REPORT)
    stores.pass_time(1)
    stores.heartbeats.write(again, REPORT)
    assert [beat.identity for beat in stores.heartbeats.read()] == [again, ONE, TWO]


def test_processes_that_have_long_gone_are_forgotten(stores: Stores) -> None:
    for identity in (ONE, TWO):
        stores.heartbeats.write(identity, REPORT)
    beats = stores.heartbeats.read()
    stores.pass_time(100)
    stores.heartbeats.write(TWO, REPORT)
    stores.heartbeats.forget([])
    stores.heartbeats.forget([beat for beat in beats if beat.identity == TWO])
    assert len(stores.heartbeats.read()) == 2, "it has beaten since"
    stores.heartbeats.forget(stores.heartbeats.read()[:1])
    assert [beat.identity for beat in stores.heartbeats.read()] == [TWO]


@pytest.mark.parametrize("jump", [600.0, -600.0, 1e8, -1e8])
def test_whoever_beats_is_alive_and_whoever_does_not_is_dead_whatever_the_clock_says(
    stores: Stores, jump: float
) -> None:
    watch = BeatWatch(6.0)
    for identity in (ONE, TWO):
        stores.heartbeats.write(identity, REPORT)
    assert all(beat.is_fresh(6.0) for beat in watch.observe(stores.heartbeats.read(), 0.0))
    stores.pass_time(jump)
    for second in (3.0, 6.0, 9.0):
        stores.pass_time(3.0)
        stores.heartbeats.write(TWO, REPORT)
        beats = watch.observe(stores.heartbeats.read(), second)
    assert [(beat.identity, beat.is_fresh(6.0)) for beat in beats] == [(ONE, False), (TWO, True)]
    assert beats[0].age_s >= 9.0


def test_to_one_who_has_just_come_a_beat_of_a_moment_to_come_is_not_fresh(stores: Stores) -> None:
    stores.heartbeats.write(ONE, REPORT)
    stores.pass_time(-600)
    assert not BeatWatch(6.0).observe(stores.heartbeats.read(), 0.0)[0].is_fresh(6.0)
    assert doubled(stores.heartbeats.read(), 6.0) == {}


def test_health_begins_anew_with_each_process_and_each_silence() -> None:
    stores, health = in_memory(), PrimaryHealth(6.0)
    health.observe(stores.heartbeats.read(), 0.0)
    assert (health.primary, health.healthy_since, health.age(0.0)) == (None, None, float("inf"))
    stores.heartbeats.write(ONE, REPORT)
    health.observe(stores.heartbeats.read(), 10.0)
    stores.pass_time(2)
    health.observe(stores.heartbeats.read(), 12.0)
    assert (health.primary, health.healthy_since, health.age(13.0)) == (ONE, 10.0, 3.0)
    again = Identity.new("n1", 1)
    stores.heartbeats.write(again, REPORT)
    health.observe(stores.heartbeats.read(), 14.0)
    assert (health.primary, health.healthy_since) == (again, 14.0)
    assert doubled(stores.heartbeats.read(), 6.0) == {}, "two copies of one node"
    stores.pass_time(7)
    health.observe(stores.heartbeats.read(), 21.0)
    assert (health.primary, health.healthy_since) == (None, None)


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
def test_a_primary_that_starts_or_that_has_signed_off_is_not_healthy_whatever_it_was_before(state: State) -> None:
    stores, health = in_memory(), PrimaryHealth(6.0)
    stores.heartbeats.write(ONE, REPORT)
    health.observe(stores.heartbeats.read(), 10.0)
    stores.pass_time(4)
    stores.heartbeats.write(ONE, Report(role="standby", state=state))
    health.observe(stores.heartbeats.read(), 14.0)
    assert (health.primary, health.healthy_since, health.age(14.0)) == (None, None, float("inf"))


@pytest.mark.parametrize("rank", [1, 2])
def test_live_nodes_that_say_they_have_the_same_rank_are_named(rank: int) -> None:
    stores = in_memory()
    for name in ("b", "a"):
        stores.heartbeats.write(Identity.new(name, rank), REPORT)
    stores.heartbeats.write(Identity.new("c", 3), REPORT)
    assert doubled(stores.heartbeats.read(), 6.0) == {rank: ("a", "b")}
    stores.pass_time(7)
    assert doubled(stores.heartbeats.read(), 6.0) == {}


def test_a_node_that_has_signed_off_is_nobodys_rival() -> None:
    stores = in_memory()
    stores.heartbeats.write(Identity.new("replica-of-yesterday", 1), Report(role="standby", state="STOPPING"))
    stores.heartbeats.write(ONE, REPORT)
    assert doubled(stores.heartbeats.read(), 6.0) == {}


def test_a_failback_waits_for_old_rows_of_live_nodes_and_for_rank_1() -> None:
    stores = in_memory()
    stores.heartbeats.write(TWO, Report(role="backup", state="LEADING", queue=3, queue_oldest_s=5.0))
    stores.heartbeats.write(ONE, REPORT)
    beats = stores.heartbeats.read()
    assert pending(beats, 9, ONE, 6.0) == 3
    assert pending(beats, 12, ONE, 6.0) == 3 + 3
    stores.pass_time(7)
    stores.heartbeats.write(ONE, REPORT)
    assert pending(stores.heartbeats.read(), 9, ONE, 6.0) == 0, "a dead node's queue does not block"
    stores.heartbeats.write(TWO, Report(role="backup", state="LEADING", queue=3, queue_oldest_s=1.0))
    assert pending(stores.heartbeats.read(), 9, ONE, 6.0) == 0, "intake goes on meanwhile"


def test_of_a_node_that_is_being_deployed_the_process_that_started_last_counts() -> None:
    old, new, leaving, dead = (Identity.new(node, 1) for node in ("n1", "n1", "n1", "n2"))

    def beat(identity: Identity, started_at: float, age_s: float = 1.0, state: str = "STANDBY") -> Beat:
        report = Report(role="standby", state=state)
        return Beat(identity=identity, age_s=age_s, beat_at=0.0, started_at=started_at, report=report)

    beats = [beat(new, 20.0), beat(old, 10.0), beat(leaving, 30.0, state=State.STOPPING), beat(dead, 40.0, age_s=7.0)]
    assert {node: found.identity for node, found in youngest_alive(beats, 6.0).items()} == {"n1": new}
