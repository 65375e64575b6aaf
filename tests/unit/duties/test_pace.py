"""Duties that go by dates, while the ledger's clock is set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.supervisor.duties.pace import Pace, by_date
from tests.support.clock import FakeClock

NOW, HOUR_S = 1_764_000_000.0, 3600.0


@pytest.mark.parametrize("jump", [600.0, -600.0, 3.0, 1e8])
def test_for_an_hour_after_the_clock_was_set_nothing_is_done_that_goes_by_dates(jump: float) -> None:
    here, ledger, done = FakeClock(), FakeClock(NOW), list[float]()
    duty = by_date(lambda writing: bool(done.append(writing.now)), Pace(here))

    def turn(seconds: float) -> int:
        here.move(seconds)
        ledger.move(seconds)
        writing: Any = SimpleNamespace(now=ledger())
        assert not duty(writing)
        return len(done)

    assert turn(10) == 1
    assert turn(10) == 2
    ledger.move(jump)
    assert turn(10) == 2
    assert turn(HOUR_S) == 2
    assert turn(1.0) == 3


def test_a_slow_answer_is_no_clock_that_was_set() -> None:
    here = FakeClock()
    pace = Pace(here)
    for late in (0.0, 1.5, 0.0, 1.9):
        pace.observe(NOW + here() - late)
        here.move(1.0)
    assert not pace.was_set_within(HOUR_S)
