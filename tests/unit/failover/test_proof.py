"""Which refusal of an event counts as a try: the table of cases."""

from __future__ import annotations

import pytest

from failover.errors import Doubted, FailoverError, NotTaken, Refused, Unreadable
from failover.proof import is_proven

NONE: set[str] = set()


@pytest.mark.parametrize(
    ("error", "taken", "refused", "proven"),
    [
        # What nobody can read is at fault whatever becomes of the others.
        (Unreadable("not JSON"), NONE, 1, True),
        (Unreadable("not JSON"), NONE, 9, True),
        (Unreadable("not JSON"), {"usage"}, 1, True),
        # The handler's own word, unless it takes nothing of several.
        (Refused("no such player"), NONE, 1, True),
        (Refused("no such player"), {"ping"}, 3, True),
        (Refused("no such player"), NONE, 2, False),
        # A value that the database did not take: another of the same kind has to be taken.
        (Doubted("SQLSTATE 23514"), {"usage", "ping"}, 1, True),
        (Doubted("SQLSTATE 23514"), {"usage"}, 5, True),
        (Doubted("SQLSTATE 23514"), {"ping"}, 1, False),
        (Doubted("SQLSTATE 23514"), NONE, 1, False),
        (Doubted("UnicodeEncodeError"), NONE, 1, False),
        # The surroundings, and rows that others hold.
        (NotTaken("SQLSTATE 42501"), {"usage"}, 1, False),
        (NotTaken("SQLSTATE 42501"), NONE, 9, False),
        (NotTaken("SQLSTATE 57014"), {"usage"}, 1, False),
    ],
)
def test_a_refusal_counts_where_it_stands_alone(
    error: FailoverError, taken: set[str], refused: int, proven: bool
) -> None:
    assert is_proven(error, "usage", taken, refused) is proven
