"""How closely the ledger is followed: closely while clients call, else as often as the node beats."""

from __future__ import annotations

import pytest

from api.supervisor.pace import Pace
from tests.support.clock import FakeClock


@pytest.mark.parametrize(("beat_s", "idle_s"), [(1.5, 2.0), (0.5, 1.0), (60.0, 2.0)])
def test_a_node_that_nobody_calls_looks_by_itself_where_no_beat_has_looked(
    clock: FakeClock, beat_s: float, idle_s: float
) -> None:
    pace = Pace(beat_s, lambda: 0.0, clock)
    looked_at = clock()
    assert not pace.is_due(looked_at)
    clock.time += idle_s - 0.01
    assert not pace.is_due(looked_at)
    clock.time += 0.02
    assert pace.is_due(looked_at)
    assert pace.is_due(None), "it has never looked"


def test_a_call_makes_it_look_at_once_and_for_some_seconds(clock: FakeClock) -> None:
    called_at = [0.0]
    pace = Pace(1.5, lambda: called_at[0], clock)
    assert not pace.is_asked
    called_at[0] = clock()
    for _ in range(4):
        assert pace.is_asked
        assert pace.is_due(clock())
        clock.time += 1.0
    clock.time += 1.1
    assert not pace.is_asked
    assert not pace.is_due(clock())
