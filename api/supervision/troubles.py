"""What an operator has to see to, each as a sentence: published for `/readyz`, and logged when it begins and ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from api import logs
from failover import Status

_log = logs.get("supervision")

#: By how much a machine's wall clock may be off before that is said, in seconds.
CLOCK_OFF_S = 60.0
#: How full a queue is when that is said: there is still time.
_NEARLY_FULL = 0.9


def of_the_cluster(status: Status) -> Iterator[str]:
    """What the heartbeats show."""
    for rank, nodes in sorted(status.doubled.items()):
        yield (
            f"{' and '.join(nodes)} all say that they have rank {rank}: "
            "each node's NODE_RANK must be its own place in the clients' list"
        )


def of_the_clock(wall_skew: float) -> Iterator[str]:
    """This machine's wall clock against the ledger's; answers go by the ledger's."""
    if abs(wall_skew) > CLOCK_OFF_S:
        way = "ahead of" if wall_skew > 0 else "behind"
        yield f"this machine's wall clock is over {CLOCK_OFF_S:g} s {way} the ledger's, by which all answers go"


def of_the_copy(reason: str | None) -> Iterator[str]:
    """`reason`: why the snapshot could not be written."""
    if reason is not None:
        yield f"this node's copy of the ledger cannot be written ({reason}): every check reads the ledger itself"


def of_the_queue(reason: str | None, filled: float) -> Iterator[str]:
    """`reason`: why the queue cannot be used; `filled`: how full it is, from 0 to 1."""
    if reason is not None:
        yield f"this node's queue cannot be used ({reason}): it answers nothing while the ledger is away"
    if filled >= 1.0:
        yield "this node's queue is full: it takes nothing more until the ledger is back"
    elif filled >= _NEARLY_FULL:
        yield "this node's queue is nearly full"


def of_what_was_set_aside(files: Iterable[Path]) -> Iterator[str]:
    """`files`: queues of other ledgers that this node was at before."""
    for file in files:
        yield (
            f"{file.name} beside this node's queue holds events of another ledger: give a node that ledger and this "
            "file as its QUEUE_PATH, or move the file away"
        )


class Said:
    """Logs a trouble when it comes up, and once more when it is over."""

    def __init__(self) -> None:
        self._now: tuple[str, ...] = ()

    def say(self, troubles: Iterable[str]) -> tuple[str, ...]:
        """`troubles` as they are now, each begun or ended one logged."""
        before, self._now = self._now, tuple(troubles)
        for one in self._now:
            if one not in before:
                _log.error("trouble", extra={"what": one})
        for one in before:
            if one not in self._now:
                _log.info("the trouble is over", extra={"what": one})
        return self._now
