"""Ledger time: the monotonic clock plus an offset, kept as good as the best sample allows."""

from __future__ import annotations

import pytest

from api.clock import Clock


class Time:
    """A machine whose clocks the test sets."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 5_000.0
        self.clock = Clock(lambda: self.monotonic, lambda: self.wall)

    def sample(self, ledger_time: float, round_trip: float) -> None:
        """A sample whose round trip ends now."""
        self.clock.sample(ledger_time, self.monotonic - round_trip, self.monotonic)


def test_before_the_first_sample_it_is_the_wall_clock() -> None:
    time = Time()
    assert time.clock.now() == 5_000
    time.monotonic += 2
    assert time.clock.now() == 5_002


def test_a_wall_clock_that_is_an_hour_off_does_not_matter() -> None:
    time = Time()
    time.sample(8_600, 0)
    assert time.clock.now() == 8_600
    assert time.clock.wall_skew == -3_600
    time.wall += 86_400  # somebody sets it
    time.monotonic += 1
    assert time.clock.now() == 8_601
    assert time.clock.wall_skew == 5_000 + 86_400 - 8_601


def test_a_sample_counts_for_the_middle_of_its_round_trip() -> None:
    time = Time()
    time.sample(9_000, 4)
    assert time.clock.now() == 9_002


def test_a_worse_sample_does_not_replace_a_better_one() -> None:
    time = Time()
    time.sample(9_000, 0.01)
    time.monotonic += 1
    time.sample(9_000.3, 2)  # says 9_001.3, give or take 1
    assert time.clock.now() == pytest.approx(9_001.005)


def test_a_better_sample_replaces_a_worse_one() -> None:
    time = Time()
    time.sample(9_000, 2)
    time.sample(9_000.5, 0.01)
    assert time.clock.now() == pytest.approx(9_000.505)


def test_an_old_sample_loses_its_worth_to_drift() -> None:
    time = Time()
    time.sample(9_000, 0.01)
    time.monotonic += 3_600  # in which a cheap oscillator may drift by 0.7 s
    time.sample(12_600.2, 0.5)
    assert time.clock.now() == pytest.approx(12_600.45)


def test_a_ledger_whose_clock_was_set_is_followed_however_bad_the_sample() -> None:
    time = Time()
    time.sample(9_000, 0.01)
    time.sample(20_000, 2)
    assert time.clock.now() == 20_001
