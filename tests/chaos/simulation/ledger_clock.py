"""The clock of the ledger's machine, which may be set, and what its readings can have meant."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.simulation.disk import EPOCH


class LedgerClock:
    """`virtual` gives the true time. `offsets`: how far ahead of that this clock ever was, the present one last."""

    def __init__(self, virtual: Callable[[], float]) -> None:
        self._virtual = virtual
        self.offsets = [0.0]
        #: When it was set last, in true time.
        self.set_at = float("-inf")
        #: By how much it was set forward altogether in steps that nobody can tell from a slow answer.
        self.crept = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return EPOCH + self._virtual() + self.offsets[-1]

    def set(self, by: float) -> None:
        """Forward, or below 0 back."""
        self.offsets.append(self.offsets[-1] + by)
        self.set_at = self._virtual()
        self.crept += by if 0.0 < by <= 2.5 else 0.0

    @property
    def was_set(self) -> bool:
        """Whether it was ever."""
        return len(self.offsets) > 1

    def meant(self, said: float, off: float) -> list[float]:
        """The true moments at which it can have said `said`, by anybody's idea of it that is at most `off` wrong."""
        moments = [said - EPOCH - offset for offset in self.offsets]
        return [moment for moment in moments if -off <= moment <= self._virtual() + off]

    def said(self, moment: float) -> list[float]:
        """What it can have said at a true moment, by whoever had not heard yet that it was set."""
        return [EPOCH + moment + offset for offset in self.offsets]
