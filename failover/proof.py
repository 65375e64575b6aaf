"""Which refusal of an event counts as one of its tries. Pure.

A fault of the surroundings refuses everything; a fault of the event refuses it alone. So a try is counted only where
the event was sent by itself, and

- it could not be read (`Unreadable`): a checksum or a text that no database has touched proves itself; or
- the handler said that it will never take it (`Refused`), unless the handler refused several events of this run and
  took none: then it is the handler that takes nothing; or
- it was refused for an unknown reason (`Doubted`), while the same run brought another event of the same kind through.

What was only not taken (`NotTaken`: rows that others hold, a statement that took too long, a table or a right that is
missing) never counts, nor does an outage.
"""

from __future__ import annotations

from collections.abc import Collection

from failover.errors import Doubted, FailoverError, Refused, Unreadable


def is_proven(error: FailoverError, kind: str, taken: Collection[str], refused: int) -> bool:
    """Whether `error`, met by one event of `kind` alone, is that event's own fault.

    `taken`: the kinds of the events that the handler took in the same run; `refused`: how many events it did not.
    """
    if isinstance(error, Unreadable):
        return True
    if isinstance(error, Refused):
        return bool(taken) or refused == 1
    return isinstance(error, Doubted) and kind in taken
