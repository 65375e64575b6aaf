"""Ledger time: the monotonic clock plus an offset, as good as the best sample allows, and true when a clock is set."""

from __future__ import annotations

import itertools

import pytest

from api.node.clock import Clock
from api.node.clock_judge import ClockSource, Gaps, Start, judge, judge_start, may_start_alone

HOUR, YEARS = 3_600.0, 2 * 365 * 86_400.0


class Time:
    """A machine, and a ledger's host, whose clocks the test sets."""

    def __init__(self, wall: float = 5_000.0) -> None:
        self.monotonic = 100.0
        self.wall = wall
        self.ledger = wall
        self.clock = Clock(lambda: self.monotonic, lambda: self.wall)

    def sample(self, ledger_time: float, round_trip: float) -> None:
        """A sample whose round trip ends now."""
        self.clock.sample(ledger_time, self.monotonic - round_trip, self.monotonic)

    def passes(self, seconds: float) -> None:
        """Time for all three, and a sample."""
        self.monotonic += seconds
        self.suspended(seconds)

    def suspended(self, seconds: float) -> None:
        """Time in which this machine's monotonic clock stands still, and a sample."""
        self.wall += seconds
        self.ledger += seconds
        self.sample(self.ledger, 0.01)


def test_before_the_first_sample_it_is_the_wall_clock() -> None:
    time = Time()
    assert time.clock.now() == 5_000
    time.monotonic += 2
    assert time.clock.now() == 5_002
    assert time.clock.is_trusted


def test_a_wall_clock_that_is_an_hour_off_does_not_matter() -> None:
    time = Time()
    time.sample(8_600, 0)
    assert time.clock.now() == 8_600
    assert time.clock.wall_skew == -3_600
    time.wall += 86_400  # somebody sets it
    time.monotonic += 1
    assert time.clock.now() == 8_601
    assert time.clock.wall_skew == 5_000 + 86_400 - 8_601
    time.sample(8_601, 0)
    assert time.clock.now() == 8_601
    assert time.clock.is_trusted


def test_a_sample_counts_for_the_middle_of_its_round_trip() -> None:
    time = Time()
    time.sample(5_500, 4)
    assert time.clock.now() == 5_502


def test_a_worse_sample_does_not_replace_a_better_one() -> None:
    time = Time()
    time.sample(5_500, 0.01)
    time.monotonic += 1
    time.sample(5_500.3, 2)  # says 5_501.3, give or take 1
    assert time.clock.now() == pytest.approx(5_501.005)


def test_a_better_sample_replaces_a_worse_one() -> None:
    time = Time()
    time.sample(5_500, 2)
    time.sample(5_500.5, 0.01)
    assert time.clock.now() == pytest.approx(5_500.505)


def test_an_old_sample_loses_its_worth_to_drift() -> None:
    time = Time()
    time.sample(5_500, 0.01)
    time.monotonic += 3_600  # in which a cheap oscillator may drift by 0.7 s
    time.sample(9_100.2, 0.5)
    assert time.clock.now() == pytest.approx(9_100.45)


def test_a_ledger_whose_clock_is_put_right_by_some_seconds_is_followed_however_bad_the_sample() -> None:
    time = Time()
    time.sample(5_500, 0.01)
    time.sample(5_550, 2)
    assert time.clock.now() == 5_551


# -- a clock that was set ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 600.0, -600.0, 300.0, YEARS, -YEARS])
def test_a_database_whose_clock_is_set_does_not_take_the_node_along(jump: float) -> None:
    time = Time(10 * YEARS)
    time.passes(1)
    time.ledger += jump
    for _ in range(5):
        time.passes(1)
        assert time.clock.now() == pytest.approx(time.wall, abs=0.1)
        assert time.clock.is_trusted
        dispute = time.clock.dispute
        assert dispute is not None
        assert dispute.belief is ClockSource.CARRIED
        assert dispute.ledger == pytest.approx(10 * YEARS + 2 + jump, abs=0.1), "what it said first"
    time.ledger -= jump
    time.passes(1)
    assert time.clock.now() == pytest.approx(time.ledger, abs=0.1)
    assert time.clock.dispute is None


def test_a_second_clock_that_is_set_while_the_databases_is_wrong_changes_nothing() -> None:
    time = Time()
    time.passes(1)
    time.ledger += 600
    time.passes(1)
    time.wall += 20_000
    time.passes(1)
    assert time.clock.is_trusted
    assert time.clock.now() == pytest.approx(5_003, abs=0.1)


@pytest.mark.parametrize("asleep", [90.0, HOUR, 86_400.0])
@pytest.mark.parametrize("skew", [0.0, -HOUR, HOUR])
def test_a_machine_that_was_suspended_goes_on_by_the_ledger_at_once(asleep: float, skew: float) -> None:
    time = Time(10 * YEARS)
    time.wall += skew
    time.passes(1)
    time.suspended(asleep)
    assert time.clock.now() == pytest.approx(time.ledger, abs=0.1)
    assert time.clock.is_trusted
    assert time.clock.dispute is None


def test_a_suspension_while_the_databases_clock_is_wrong_is_made_up_for() -> None:
    time = Time()
    time.passes(1)
    time.ledger += 600
    time.passes(1)
    time.suspended(7_200)
    time.passes(1)
    assert time.clock.now() == pytest.approx(time.wall, abs=0.1)
    assert time.clock.is_trusted


def test_a_ledgers_clock_that_is_put_right_where_it_had_been_wrong_from_the_start_is_followed() -> None:
    time = Time(10 * YEARS)
    time.ledger += HOUR
    time.passes(1)
    assert time.clock.now() == pytest.approx(time.ledger, abs=0.1)
    time.ledger -= HOUR
    time.passes(1)
    assert time.clock.now() == pytest.approx(time.wall, abs=0.1)
    assert time.clock.dispute is None


def test_where_no_two_clocks_agree_nothing_is_trusted_until_two_do() -> None:
    time = Time()
    time.passes(1)
    time.ledger, time.wall = time.ledger + YEARS, time.wall - HOUR
    time.passes(1)
    assert not time.clock.is_trusted
    assert time.clock.now() == pytest.approx(5_002, abs=0.1), "not by either"
    time.wall += HOUR
    time.passes(1)
    assert time.clock.is_trusted
    assert time.clock.now() == pytest.approx(5_003, abs=0.1)


def test_an_operator_decides() -> None:
    time = Time()
    time.passes(1)
    time.ledger += YEARS
    time.passes(1)
    time.clock.trust()
    time.passes(1)
    assert time.clock.now() == pytest.approx(time.ledger, abs=0.1)
    assert time.clock.dispute is None
    time.passes(1)
    assert time.clock.dispute is None, "for good"


def test_a_frozen_process_does_not_take_its_own_delay_for_a_jump() -> None:
    time = Time()
    time.passes(1)
    time.monotonic, time.wall, time.ledger = time.monotonic + 400, time.wall + 400, time.ledger + 400
    time.clock.sample(5_001.2, time.monotonic - 400, time.monotonic)
    assert time.clock.dispute is None
    assert time.clock.now() == pytest.approx(5_401, abs=0.1)


# -- the start --------------------------------------------------------------------------------------------------------


def started(
    ledger: float, wall: float, *, skew: float = 0.0, as_of: float | None = None, calls: tuple[float, ...] = ()
) -> Clock:
    """The clock of a node that has just started and sampled its ledger."""
    clock = Clock(lambda: 100.0, lambda: wall)
    if as_of is not None:
        clock.start_from(skew, as_of)
    clock.witness_of(as_of, *calls)
    clock.sample(ledger, 100.0, 100.0)
    return clock


NOW = 10 * YEARS


@pytest.mark.parametrize(
    ("readings", "time"),
    [
        ({"ledger": NOW, "wall": NOW - HOUR}, NOW),
        ({"ledger": NOW, "wall": NOW + HOUR}, NOW),
        ({"ledger": NOW, "wall": NOW - YEARS}, None),
        ({"ledger": NOW, "wall": NOW - YEARS, "calls": (NOW - 86_400,)}, NOW),  # a battery is dead
        ({"ledger": NOW, "wall": NOW - YEARS, "as_of": NOW - 86_400}, NOW),
        ({"ledger": NOW - YEARS, "wall": NOW, "as_of": NOW - 86_400}, NOW),  # the database's host lost its time
        ({"ledger": NOW + YEARS, "wall": NOW, "as_of": NOW - 86_400}, None),
        ({"ledger": NOW + YEARS, "wall": NOW, "calls": (NOW - 5,)}, NOW),  # the others just signed
        ({"ledger": NOW + YEARS, "wall": NOW, "calls": (NOW + YEARS - 5,)}, NOW + YEARS),
        ({"ledger": NOW + 600, "wall": NOW, "as_of": NOW - 1}, NOW),
        ({"ledger": NOW + 600, "wall": NOW}, NOW + 600),
        ({"ledger": NOW, "wall": NOW + 5 * HOUR, "skew": 5 * HOUR, "as_of": NOW - 86_400}, NOW),  # always 5 h ahead
        ({"ledger": NOW, "wall": NOW + 5 * HOUR, "calls": (NOW - 1,)}, NOW),
        ({"ledger": NOW, "wall": NOW + 5 * HOUR}, None),
        # The database's host lost its time, and nobody knows how far ahead this machine is: it has no disk.
        ({"ledger": NOW - YEARS, "wall": NOW + HOUR, "calls": (NOW - 5,)}, None),
        ({"ledger": NOW - 86_400, "wall": NOW + 120, "calls": (NOW - 10, NOW - 5)}, None),
        ({"ledger": NOW - YEARS, "wall": NOW + HOUR, "skew": HOUR, "as_of": NOW - 86_400}, NOW),
        ({"ledger": NOW - YEARS, "wall": NOW + HOUR, "calls": (NOW + HOUR - 5,)}, NOW + HOUR),
    ],
)
def test_a_node_that_starts_goes_by_what_is_vouched_for(readings: dict[str, float], time: float | None) -> None:
    clock = started(**readings)  # type: ignore[arg-type]
    assert clock.is_trusted is (time is not None)
    assert clock.now() == (readings["ledger"] if time is None else time)
    assert (clock.dispute is None) is (clock.now() == readings["ledger"] and time is not None)


def test_a_start_that_was_not_decided_is_decided_when_others_sign() -> None:
    clock = started(NOW, NOW + 5 * HOUR)
    assert not clock.is_trusted
    clock.witness_of(NOW - 2)
    clock.sample(NOW, 100.0, 100.0)
    assert clock.is_trusted
    assert clock.dispute is None


def test_a_start_beside_a_ledger_that_was_set_back_is_decided_when_that_is_put_right_or_an_operator_says_so() -> None:
    calls = (NOW - 5,)
    clock = started(NOW - YEARS, NOW + HOUR, calls=calls)
    assert clock.dispute is not None
    clock.sample(NOW, 100.0, 100.0)
    assert clock.is_trusted
    assert clock.now() == NOW
    said = started(NOW - YEARS, NOW + HOUR, calls=calls)
    said.trust()
    said.sample(NOW - YEARS, 100.0, 100.0)
    assert said.is_trusted
    assert said.now() == NOW - YEARS


def test_without_the_ledger_a_node_starts_from_its_copy_unless_its_clock_is_behind_that() -> None:
    time = Time()
    time.clock.start_from(-HOUR, 5_000.0)
    assert time.clock.is_trusted
    assert time.clock.now() == 5_000 + HOUR
    behind = Time()
    behind.clock.start_from(0.0, 5_000.0 + HOUR)
    assert not behind.clock.is_trusted
    behind.wall += 2 * HOUR
    behind.clock.start_from(0.0, 5_000.0 + HOUR)
    assert behind.clock.is_trusted


# -- an embedded ledger -----------------------------------------------------------------------------------------------


def test_an_embedded_ledger_goes_by_the_wall_and_then_carries_its_pace_on() -> None:
    time = Time()
    time.clock.go_by_the_wall(4_000.0)
    assert time.clock.is_trusted
    time.wall += YEARS
    time.monotonic += 1
    time.clock.go_by_the_wall(None)
    assert time.clock.now() == 5_001
    time.clock.trust()
    time.clock.go_by_the_wall(None)
    assert time.clock.now() == 5_000 + YEARS


def test_a_machine_behind_what_it_signed_before_waits_until_it_is_not_or_an_operator_says_so() -> None:
    time = Time()
    time.clock.go_by_the_wall(5_000.0 + HOUR)
    assert not time.clock.is_trusted
    assert time.clock.dispute is not None
    time.wall += HOUR
    time.clock.go_by_the_wall(5_000.0 + HOUR)
    assert time.clock.is_trusted
    assert time.clock.now() == 5_000 + HOUR
    said = Time()
    said.clock.go_by_the_wall(5_000.0 + YEARS)
    said.clock.trust()
    said.clock.go_by_the_wall(5_000.0 + YEARS)
    assert said.clock.is_trusted
    assert said.clock.now() == 5_000


# -- the judge --------------------------------------------------------------------------------------------------------


def test_every_way_to_set_three_clocks() -> None:
    """Each of the two outer clocks was set by nothing, little, or much, before and now."""
    moves = (0.0, 30.0, -30.0, 600.0, -600.0, YEARS)
    for ledger_before, wall_before, ledger, wall in itertools.product(moves, repeat=4):
        belief = judge(Gaps(ledger, wall, ledger_before, wall_before))
        agrees = abs(ledger) <= 60 or abs(ledger - wall) <= 60
        kept_pace = abs(ledger - ledger_before) <= 60 or abs(wall - wall_before) <= 60
        alike = abs((ledger - ledger_before) - (wall - wall_before)) <= 60
        expected = (
            ClockSource.LEDGER
            if agrees
            else ClockSource.CARRIED
            if kept_pace
            else ClockSource.RESUMED
            if alike
            else ClockSource.UNKNOWN
        )
        assert belief is expected, (ledger_before, wall_before, ledger, wall)


def test_witnesses_that_stand_beside_both_leave_it_to_how_late_it_was() -> None:
    assert judge_start(Start(NOW + 100, NOW, NOW, (NOW + 50,))) is ClockSource.LEDGER, "within an hour: the ledger's"
    assert judge_start(Start(NOW + 2 * HOUR, NOW, NOW, (NOW, NOW + 2 * HOUR))) is ClockSource.LEDGER, "that late it was"


@pytest.mark.parametrize(("wall", "floor", "may"), [(1.0, None, True), (100.0, 150.0, True), (100.0, 161.0, False)])
def test_a_machine_alone_may_not_be_behind_what_was_signed(wall: float, floor: float | None, may: bool) -> None:
    assert may_start_alone(wall, floor) is may
