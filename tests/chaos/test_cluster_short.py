"""The short form of `make chaos`: every kind of fault once, to real nodes under a steady load of real clients."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.chaos.cluster.kinds import FAULTS
from tests.chaos.cluster.run import run
from tests.support.programs import PostgresUnavailable, find_programs

#: Ten are promised; a takeover waits for nothing but the clock and the cores, and those are shared here.
_TAKEOVER_S = 30.0
_PAIRS = 4


@pytest.mark.slow
def test_no_check_goes_unanswered_is_denied_wrongly_lost_or_doubled_under_any_kind_of_fault(
    tmp_path: Path, seed: int
) -> None:
    try:
        find_programs()
    except PostgresUnavailable as error:
        pytest.skip(f"POSTGRES IS MISSING: {error}")
    found = run(tmp_path, seed=seed, faults=None, pairs=_PAIRS, short=True)
    print(json.dumps(found.figures, indent=2))
    assert found.broken == []
    assert set(found.figures["by_kind"]) | set(found.figures["not_made"]) == set(FAULTS)
    if os.environ.get("CI"):
        assert found.figures["not_made"] == {}, "CI has all that is needed"
    assert found.figures["pairs"] > 0
    assert found.figures["checks"] > 1000
    assert found.figures["queued_answers"] > 0
    takeovers = [each for each in found.figures["takeover_s"].values() if each is not None]
    assert len(takeovers) == 4
    assert all(each["max"] < _TAKEOVER_S for each in takeovers)
