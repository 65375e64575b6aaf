"""Since when and up to when silence counts: what one look makes of the one before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.supervisor.duties.watching import Limits, ProcessBeat, WatchRecord, observe

NOW, TIMEOUT, MAX_AGE = 1_000_000.0, 6.0, 7 * 86_400.0
LIMITS = Limits(TIMEOUT, MAX_AGE)
BEFORE = WatchRecord(since=500.0, until=NOW - 4, looked_at=NOW - 1.5)
IN_FLIGHT_S = 3.0


def said(age: float = 0.5, **more: Any) -> ProcessBeat:
    known = {"node": "n1", "started_at": 0.0, "beat_at": NOW - age, "state": "STANDBY", "queue": 0}
    return ProcessBeat(**(known | more))


def found(*processes: ProcessBeat, before: WatchRecord | None = BEFORE) -> WatchRecord:
    return observe(before, processes, NOW, LIMITS)


def test_where_all_beat_and_have_nothing_queued_silence_goes_on_counting_since_the_last_trouble() -> None:
    assert found(said(), said(node="n2")).since == BEFORE.since


def test_a_ledger_without_trouble_ever_counts_from_the_beginning() -> None:
    assert found(said(), before=None).since is None


@pytest.mark.parametrize("age", [TIMEOUT + 0.001, 3600.0, MAX_AGE])
def test_a_process_that_is_silent_may_hold_pings(age: float) -> None:
    assert found(said(), said(age, node="n2")).since == NOW


def test_one_that_was_silent_for_longer_than_a_node_answers_alone_holds_nothing_that_counts() -> None:
    assert found(said(), said(MAX_AGE + 1, node="n2")).since == BEFORE.since


def test_one_that_signed_off_with_an_empty_queue_is_not_waited_for() -> None:
    assert found(said(), said(60, node="n2", state="STOPPING")).since == BEFORE.since


def test_one_that_signed_off_with_something_queued_is_waited_for() -> None:
    assert found(said(), said(60, node="n2", state="STOPPING", queue=1)).since == NOW


@pytest.mark.parametrize("state", ["STANDBY", "REPLAYING", "STOPPING"])
def test_a_queue_that_is_not_empty_is_trouble(state: str) -> None:
    assert found(said(), said(node="n2", queue=3, state=state)).since == NOW


@pytest.mark.parametrize("others", [(), (said(node="n2"),)])
def test_a_row_that_waits_stops_the_counting_where_it_was_taken_and_is_no_trouble(
    others: tuple[ProcessBeat, ...],
) -> None:
    observe = found(said(queue=1, queue_oldest_at=NOW - 600), *others)
    assert (observe.since, observe.until) == (BEFORE.since, NOW - 600)


def test_a_row_that_was_taken_a_moment_ago_stops_nothing() -> None:
    assert found(said(queue=1, queue_oldest_at=NOW - 0.6), said(node="n2")).until == NOW - 0.5 - IN_FLIGHT_S


def test_a_younger_process_of_the_same_node_speaks_for_the_one_that_was_killed() -> None:
    killed = said(60, node="n2")
    assert found(said(), killed, said(node="n2", started_at=NOW - 30)).since == BEFORE.since
    assert found(said(), killed, said(node="n2", started_at=NOW - 30, queue=1)).since == NOW
    assert found(said(), killed, said(30, node="n2", started_at=NOW - 50)).since == NOW


def test_a_process_that_ran_beside_the_silent_one_does_not_speak_for_it() -> None:
    assert found(said(), said(60, node="n2"), said(node="n2", started_at=NOW - 61)).since == NOW


def test_an_emptied_heartbeat_table_is_trouble() -> None:
    assert found().since == NOW


def test_a_time_in_which_nobody_looked_does_not_count() -> None:
    late = WatchRecord(since=500.0, until=NOW - 9, looked_at=NOW - TIMEOUT - 0.001)
    assert found(said(), before=late).since == NOW
    assert found(said(), before=WatchRecord(500.0, NOW - 9, NOW - TIMEOUT)).since == 500.0


def test_silence_counts_up_to_what_the_oldest_beat_of_those_that_beat_says() -> None:
    assert found(said(0.5), said(5.0, node="n2"), said(60, node="n3")).until == NOW - 5 - IN_FLIGHT_S


ages = st.floats(0, 2 * MAX_AGE)
processes = st.builds(
    said,
    ages,
    node=st.sampled_from(["n1", "n2"]),
    started_at=ages.map(lambda age: NOW - age),
    state=st.sampled_from(["STANDBY", "LEADING", "STOPPING"]),
    queue=st.integers(0, 2),
)


@given(st.lists(processes, max_size=5), st.floats(0, 20))
def test_since_never_goes_back_and_until_is_before_every_beat_of_those_that_beat(
    several: list[ProcessBeat], unseen: float
) -> None:
    before = WatchRecord(since=NOW - 100, until=NOW - unseen, looked_at=NOW - unseen)
    after = observe(before, several, NOW, LIMITS)
    assert after.since in (before.since, NOW)
    fresh = [one for one in several if NOW - one.beat_at <= TIMEOUT]
    alone = len({one.node for one in several}) < 2
    assert (after.until == float("inf")) == alone
    assert alone or all(after.until < one.beat_at for one in fresh)
    assert observe(after, several, NOW, LIMITS).since == after.since


def test_a_clock_that_was_set_is_trouble() -> None:
    assert observe(BEFORE, [said()], NOW, LIMITS, was_set=True).since == NOW
    assert found(said(), before=WatchRecord(500.0, NOW, looked_at=NOW + 600)).since == NOW, (
        "set back since the last look"
    )


def test_silence_that_counts_from_a_moment_to_come_counts_from_now() -> None:
    assert found(said(), before=WatchRecord(since=NOW + 1e8, until=NOW, looked_at=NOW - 1)).since == NOW


def test_a_beat_of_a_moment_to_come_is_one_of_a_silent_process() -> None:
    assert found(said(), said(-600, node="n2")).since == NOW
