"""The circuit breaker between a node and its ledger: open while the node is isolated, for all its processes at once.

Beside it stands what decides how calls go on meanwhile: whether the queue may hold something, whether the ledger
contradicted the node's copy, whether an operator vouched for its clock.
"""

from __future__ import annotations

from api.node.change_marks import place_of
from api.node.mapped_file import (
    CLOCK_TRUSTED_AT,
    CONTRADICTED_AT,
    DRAINED_AT,
    ISOLATED_AT,
    LAST_ISOLATED_AT,
    LICENSES_BUSY_AT,
    QUEUED_AT,
    MappedFile,
)

#: For how long a contradiction that no call meets any more is still reported.
_CONTRADICTED_FOR_S = 600.0


class LedgerBreaker:
    """Moments are monotonic seconds, 0 for what never was."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file

    @property
    def isolated_since(self) -> float | None:
        """Since when the ledger is not asked any more, because it did not answer one of the workers."""
        return self._file.moment(ISOLATED_AT) or None

    @property
    def last_isolated(self) -> float:
        """When the breaker opened the last time, closed again or not."""
        return self._file.moment(LAST_ISOLATED_AT)

    def isolate(self) -> None:
        """Opens the breaker: no call on this node waits for the ledger until `reconnected`."""
        with self._file.exclusive():
            if self.isolated_since is None:
                self._file.mark(ISOLATED_AT)
                self._file.mark(LAST_ISOLATED_AT)

    def reconnected(self) -> None:
        """Closes the breaker: the ledger answers."""
        with self._file.exclusive():
            self._file.clear(ISOLATED_AT)

    # -- the queue ----------------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """A number that rises before anything is put into the queue."""
        return self._file.number(QUEUED_AT)

    @property
    def may_hold_queued(self) -> bool:
        """Whether the queue may hold something, without a look into it."""
        return self.queued != self._file.number(DRAINED_AT)

    def will_queue(self) -> None:
        """To be called before something is put into the queue."""
        with self._file.exclusive():
            self._file.set_number(QUEUED_AT, self.queued + 1)

    def drained(self, queued: int) -> None:
        """The queue was found empty after `queued` was read."""
        with self._file.exclusive():
            self._file.set_number(DRAINED_AT, queued)

    def license_busy(self, key_hash: str) -> None:
        """To be called before a call on the license of this key is queued though the ledger is there."""
        self._file.mark(LICENSES_BUSY_AT + place_of(key_hash))

    def is_queued_while_busy(self, key_hash: str) -> bool:
        """Whether queued events of this license are there because it was busy, and not because the ledger was away."""
        return self._file.moment(LICENSES_BUSY_AT + place_of(key_hash)) > self.last_isolated

    # -- whether the ledger is to be believed -------------------------------------------------------------------------

    @property
    def is_contradicted(self) -> bool:
        """Whether the ledger did not show what the node's copy holds, a short while ago."""
        moment = self._file.moment(CONTRADICTED_AT)
        return moment > 0.0 and self._file.monotonic() - moment < _CONTRADICTED_FOR_S

    def contradicted(self) -> None:
        """To be called when the ledger does not show what the node's copy holds, and its log does not say why."""
        self._file.mark(CONTRADICTED_AT)

    def reconciled(self) -> None:
        """The copy is what the ledger is: it was made anew."""
        self._file.clear(CONTRADICTED_AT)

    @property
    def clock_trusted_at(self) -> float:
        """When an operator last confirmed that the ledger's clock is right."""
        return self._file.moment(CLOCK_TRUSTED_AT)

    def trust_clock(self) -> None:
        """An operator says that the ledger's clock, or this machine's for an embedded one, is right."""
        self._file.mark(CLOCK_TRUSTED_AT)
