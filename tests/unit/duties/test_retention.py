"""Which rows of the log must stay, whoever reads it."""

from __future__ import annotations

import pytest

from api.supervisor.duties.retention import Reader, RetentionPeriods, needed_from

NOW, HEAD = 1_000_000.0, 100
KEEP = RetentionPeriods(checks=1.0, events=1.0, timeout=6.0, gone=1_000.0)
GONE, LONG_GONE = NOW - KEEP.timeout - 1, NOW - KEEP.gone - 1


def reader(applied_seq: int, rank: int = 1, beat_at: float = NOW) -> Reader:
    return Reader(rank, beat_at, applied_seq)


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        ([reader(HEAD)], HEAD),
        ([reader(HEAD + 5)], HEAD),
        ([reader(90), reader(80, rank=2)], 80),
        ([reader(90), reader(80, rank=2, beat_at=GONE)], 90),
        ([reader(70, beat_at=GONE), reader(95, rank=2)], 70),
        ([reader(70, beat_at=GONE - 5), reader(85, beat_at=GONE), reader(95, rank=2)], 85),
        ([reader(0), reader(95, rank=2)], 0),
        # rank 1 was never heard of, or so long ago that it makes its snapshot anew
        ([reader(95, rank=2)], 95),
        ([reader(70, beat_at=LONG_GONE), reader(95, rank=2)], 95),
        # a beat of a moment to come is of nobody who beats: the clock was set back
        ([reader(70, rank=2, beat_at=NOW + 600), reader(95)], 95),
        ([reader(70, beat_at=NOW + 600), reader(95, rank=2)], 95),
        # nobody beats
        ([reader(70, beat_at=GONE)], 0),
        ([], 0),
    ],
)
def test_the_log_stays_from_the_place_that_somebody_still_needs(readers: list[Reader], expected: int) -> None:
    assert needed_from(HEAD, readers, NOW, KEEP) == expected
