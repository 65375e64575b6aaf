"""How closely a supervisor follows its ledger: some times a second while clients call, else as often as it beats.

The first call after a pause finds a copy that is older than it may be, and reads the ledger itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: How long after its last call a node counts as one that is asked.
_ASKED_FOR_S = 5.0
#: However slowly a node beats: workers go by what the ledger said a moment ago, and `/readyz` says how long ago.
_LONGEST_S = 1.5
#: By how much a beat may be late.
_LATE_S = 0.5


class Pace:
    """When to look again. `called_at`: when (monotonic) a client last called."""

    def __init__(
        self, beat_s: float, called_at: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        # The beat brings a look along: only where it does not come there is one of its own.
        self._idle_s = min(beat_s, _LONGEST_S) + _LATE_S
        self._called_at = called_at
        self._monotonic = monotonic

    @property
    def is_asked(self) -> bool:
        """Whether clients call this node."""
        return self._monotonic() - self._called_at() < _ASKED_FOR_S

    def is_due(self, looked_at: float | None) -> bool:
        """Whether it is time to look at the ledger, which was looked at last `looked_at` (monotonic; None: never)."""
        if looked_at is None:
            return True
        return self.is_asked or self._monotonic() - looked_at >= self._idle_s
