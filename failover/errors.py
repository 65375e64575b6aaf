"""What can go wrong in here, split by what the caller can do next.

FailoverError
├── ConfigError         the settings contradict each other: all faults at once
├── StoreUnavailable    the database cannot be reached, did not answer in time or cannot work: later
│   └── StoreReadOnly   it takes reads only: its connections lead to a server that is not, or no more, the primary
├── StoreBusy           it answered that others hold the rows: the same again, a moment later
├── NotLeading          the fence is closed: another process leads, or none; nothing of the transaction may commit
├── Refused             raised by a replay's handler: it will never take this event, however often it is sent
│   └── Unreadable      the same, since what was queued cannot be read: no database has a part in that
├── NotTaken            raised by a replay's handler: it did not take this batch now; less of it, or later, it may
│   └── Doubted         the same, and perhaps for what one of its events says (see `failover.proof`)
└── QueueError
    ├── QueueFull       the queue is at its limit: nothing was taken, say so
    │   └── ShareFull   only for this key: others may still write
    ├── QueueBusy       another process is writing: the same again, a moment later
    └── QueueUnavailable  the disk is full, read only or gone
"""

from __future__ import annotations

from collections.abc import Sequence

from failover.causes import Cause, cause_of, reason_of


class FailoverError(Exception):
    """Something this package could not do."""


class ConfigError(FailoverError):
    """The settings contradict each other. `faults` has every one of them as a sentence."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class StoreUnavailable(FailoverError):
    """The database cannot be reached, did not answer in time, or cannot do its work."""


class StoreReadOnly(StoreUnavailable):
    """The database takes reads only (SQLSTATE 25006): no connection made before this is to be believed."""


class StoreBusy(FailoverError):
    """Others hold what this needs. Nothing was changed; the same may be sent again."""


class NotLeading(FailoverError):
    """This holder does not have the lease with this epoch."""


class Refused(FailoverError):
    """The event itself is at fault: it will never be taken. Raised by a replay's handler."""


class Unreadable(Refused):
    """What was queued cannot be read. Raised by a replay's handler."""


class NotTaken(FailoverError):
    """This batch was not taken; less of it may be, or the same later. Raised by a replay's handler."""


class Doubted(NotTaken):
    """The same, perhaps for what one of its events says: where others of its kind are taken, it is at fault."""


class QueueError(FailoverError):
    """The queue did not take or give something."""


class QueueFull(QueueError):
    """The queue is at its limit. Nothing was taken."""


class ShareFull(QueueFull):
    """This key's events fill the share of the queue that one key may have. Nothing was taken."""


class QueueBusy(QueueError):
    """Another process has been writing for too long."""


class QueueUnavailable(QueueError):
    """The queue's disk is full, read only or gone."""


def translate(error: BaseException) -> FailoverError:
    """The `StoreBusy` or `StoreUnavailable` that a driver's error means, with `reason_of` as its words."""
    cause = cause_of(error)
    if cause is Cause.BUSY:
        return StoreBusy("others hold what this needs")
    return (StoreReadOnly if cause is Cause.READ_ONLY else StoreUnavailable)(reason_of(error))
