"""Which faults may overlap follows from what they touch, and every kind has others that it may overlap with."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from tests.chaos.cluster.judge import ALONE
from tests.chaos.cluster.kinds import FAULTS
from tests.chaos.cluster.plan import every_kind_once, pairs
from tests.chaos.cluster.scene import Draw, may_overlap


def drawn(name: str, rank: int = 1, *tables: str) -> Draw:
    return Draw(FAULTS[name], rank, tables)


@pytest.mark.parametrize(
    ("one", "other", "possible"),
    [
        (drawn("freeze_primary"), drawn("kill_primary"), False),
        (drawn("stop_postgres"), drawn("promote_standby"), False),
        (drawn("kill_postgres"), drawn("freeze_postgres"), False),
        (drawn("stop_postgres"), drawn("kill_primary"), True),
        (drawn("clock_back"), drawn("kill_primary"), True),
        (drawn("clock_back"), drawn("clock_forward"), False),
        (drawn("partition"), drawn("promote_standby"), True),
        (drawn("partition"), drawn("slow_network"), False),
        (drawn("read_only"), drawn("promote_standby"), False),
        (drawn("lock_table", 1, "machines"), drawn("revoke_table", 1, "machines"), False),
        (drawn("lock_table", 1, "machines"), drawn("revoke_table", 1, "events"), True),
        (drawn("lock_row", 1, "licenses"), drawn("row_security", 1, "licenses", "events"), False),
        # Somebody must be left who answers.
        (drawn("kill_primary"), drawn("kill_standby", 2), True),
        (drawn("kill_standby", 2), drawn("kill_standby", 3), True),
        (drawn("kill_standby", 2), drawn("kill_standby", 2), False),
        (drawn("cut_standby", 1), drawn("kill_standby", 3), False),
        (drawn("cut_standby", 1), drawn("kill_standby", 2), True),
        (drawn("cut_standby", 1), drawn("shift_clock", 3), False),
        # One of them must be able to wait for the other.
        (drawn("promote_standby"), drawn("full_disk"), False),
        # The old copy's disk is given up.
        (drawn("two_copies"), drawn("stop_postgres"), False),
        (drawn("two_copies"), drawn("kill_standby", 2), True),
    ],
)
def test_two_faults_may_overlap_where_they_touch_different_things_and_a_node_still_answers(
    one: Draw, other: Draw, possible: bool
) -> None:
    assert may_overlap(one, other) is may_overlap(other, one) is possible


def test_every_kind_is_in_some_pair_and_no_pair_is_impossible() -> None:
    found = list(islice(pairs(list(FAULTS), random.Random(7)), 300))
    assert {draw.kind.name for pair in found for draw in pair} == set(FAULTS)
    assert all(may_overlap(*pair) for pair in found)
    # The other one is made when the first is: what takes its time to be made is not waited for by what is over soon.
    assert not any(second.kind.prepares for _, second in found)
    # And the one that is over soon comes second, while the other lasts.
    assert not any(first.kind.brief and not second.kind.brief for first, second in found)


def test_kinds_of_which_no_two_may_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="no two of kill_primary, freeze_primary may overlap"):
        next(pairs(["kill_primary", "freeze_primary"], random.Random(1)))


@pytest.mark.parametrize("seed", range(20))
def test_the_short_form_makes_every_kind_once_and_in_pairs_only_what_no_figure_is_made_of(seed: int) -> None:
    turns = every_kind_once(list(FAULTS), random.Random(seed), 8)
    assert sorted(draw.kind.name for turn in turns for draw in turn) == sorted(FAULTS)
    doubled = [turn for turn in turns if len(turn) == 2]
    assert len(doubled) == 8
    assert all(may_overlap(*turn) for turn in doubled)
    assert not any(draw.kind.name in ALONE for turn in doubled for draw in turn)


def test_a_trouble_is_expected_only_where_a_check_needs_the_table() -> None:
    assert "LOCKED" not in drawn("lock_table", 1, "outbox").expects
    assert set(drawn("shift_clock").expects) <= set(FAULTS["shift_clock"].troubles)
    assert "WALL_CLOCK" in drawn("shift_clock").expects
