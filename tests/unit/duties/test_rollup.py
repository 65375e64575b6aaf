"""Which minutes are old enough to become an hour, and which hours a day."""

from __future__ import annotations

import pytest

from api.supervisor.duties.rollup import DAYS, HOURS, Step

MIDNIGHT = 20_000 * 1440


@pytest.mark.parametrize("step", [HOURS, DAYS])
@pytest.mark.parametrize("minutes", [0, 1, 59, 60, 61, 1439, 1440])
def test_only_whole_rows_that_are_old_enough_are_rolled_up(step: Step, minutes: int) -> None:
    now = MIDNIGHT + minutes
    until = step.until(60.0 * now)
    assert until % step.width == 0
    assert step.after <= now - until < step.after + step.width


def test_the_minutes_that_are_shown_and_those_that_may_be_added_to_old_totals_stay() -> None:
    """`/stats` shows 60 minutes, and adds what came since to totals that are up to ten minutes old."""
    assert HOURS.after >= 60 + 10
