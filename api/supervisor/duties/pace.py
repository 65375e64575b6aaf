"""Whether the ledger's clock keeps pace with this process's own, which cannot be set.

After the ledger's clock was set, what is stored lies in the future or seems old. Nothing is removed, culled or
recorded as expired by such a clock for an hour, in which an operator can put it right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from api import logs
from api.supervisor.duties.terms import Writing

_log = logs.get("duties")

#: More than a slow answer or a clock that is being slewed makes between two looks.
_SLACK_S = 2.0
#: How long duties wait that go by dates.
HOLD_S = 3600.0


class Pace:
    """The pace of the ledger's clock, as one process's duties observed it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ahead: float | None = None
        self._set_at = -math.inf

    def observe(self, ledger_now: float) -> None:
        """Takes in what the ledger's clock says now."""
        before, self._ahead = self._ahead, ledger_now - self._monotonic()
        if before is not None and abs(self._ahead - before) > _SLACK_S:
            self._set_at = self._monotonic()
            _log.error("the ledger's clock was set", extra={"by_s": round(self._ahead - before, 1)})

    def was_set_within(self, seconds: float) -> bool:
        """Whether the clock was set in the last `seconds`."""
        return self._monotonic() - self._set_at <= seconds


def by_date(do: Callable[[Writing], bool], pace: Pace) -> Callable[[Writing], bool]:
    """`do`, except in the hour after the ledger's clock was set."""

    def do_unless_it_was_set(writing: Writing) -> bool:
        pace.observe(writing.now)
        return not pace.was_set_within(HOLD_S) and do(writing)

    return do_unless_it_was_set
