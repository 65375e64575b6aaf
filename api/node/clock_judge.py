"""Which of three clocks was set: the ledger's, this machine's, or the one that carries ledger time on between samples.

Two that kept their pace to each other outvote the third. What is carried on stands still while a virtual machine is
suspended, a server's clock can be set by its operator, and a machine's by any user. Pure: readings in, belief out.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

#: By how many seconds two clocks may differ and still agree.
TOLERANCE_S = 60.0
#: The same for a node that has just started, whose machine's clock may be off by an hour, as clocks are.
START_TOLERANCE_S = 3_900.0


class ClockSource(Enum):
    """Whose time it is. RESUMED: the ledger's, carried time having stood still; UNKNOWN: no two clocks agree."""

    LEDGER = "ledger"
    CARRIED = "carried"
    RESUMED = "resumed"
    UNKNOWN = "unknown"


class Gaps(NamedTuple):
    """By how many seconds the ledger's and this machine's clock are ahead of carried time, now and when last judged."""

    ledger: float
    wall: float
    ledger_before: float
    wall_before: float


def judge(gaps: Gaps, error: float = 0.0) -> ClockSource:
    """Whose time it is on a node that has been carrying it on. `error`: how wrong the ledger's reading may be."""
    near = TOLERANCE_S + error
    if abs(gaps.ledger) <= near or abs(gaps.ledger - gaps.wall) <= near:
        return ClockSource.LEDGER
    ledger_moved, wall_moved = gaps.ledger - gaps.ledger_before, gaps.wall - gaps.wall_before
    if abs(ledger_moved) <= near or abs(wall_moved) <= near:
        return ClockSource.CARRIED
    return ClockSource.RESUMED if abs(ledger_moved - wall_moved) <= near else ClockSource.UNKNOWN


class Start(NamedTuple):
    """What a node that has just started reads. `expected`: its machine's clock, less what that was last ahead by.

    `witnesses`: moments of ledger time that this cluster, or this node, has known; the newest may be of just now.
    `measured`: whether it is known what the machine's clock was ahead by, from a time when the ledger's was believed.
    """

    ledger: float
    wall: float
    expected: float
    witnesses: Sequence[float] = ()
    measured: bool = False


def judge_start(start: Start, error: float = 0.0) -> ClockSource:
    """Whose time a node starts with: LEDGER, CARRIED (what its own machine's clock says), or UNKNOWN."""
    near = TOLERANCE_S + error
    if min(abs(start.ledger - start.wall), abs(start.ledger - start.expected)) <= near:
        return ClockSource.LEDGER
    by_ledger, by_own = (_stands_beside(moment, start.witnesses, near) for moment in (start.ledger, start.expected))
    if by_ledger != by_own:
        return ClockSource.LEDGER if by_ledger else ClockSource.CARRIED
    if min(abs(start.ledger - start.wall), abs(start.ledger - start.expected)) <= START_TOLERANCE_S:
        return ClockSource.LEDGER
    floor = max(start.witnesses, default=float("-inf")) - near
    if start.ledger >= floor > start.expected:
        return ClockSource.LEDGER
    # That the ledger's clock is wrong makes no other right: one that was never measured may be hours ahead.
    return ClockSource.CARRIED if start.measured and start.expected >= floor > start.ledger else ClockSource.UNKNOWN


def _stands_beside(moment: float, witnesses: Sequence[float], near: float) -> bool:
    return any(abs(moment - witness) <= near for witness in witnesses)


def may_start_alone(wall: float, floor: float | None) -> bool:
    """Whether a machine's clock may be the ledger's: it is not behind what was signed or recorded before."""
    return floor is None or wall >= floor - TOLERANCE_S
