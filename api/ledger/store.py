"""The seam to storage: what the service needs of a ledger, whichever database keeps it.

Two lanes lead through it. The check lane reads without locks (`look_up`) and appends (`append`); the write lane
(`transaction`) holds the licenses' row locks from the reading to the commit, so that seats are counted under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from api.ledger.database import AcquirePolicy, Database
from api.ledger.records import Batch, LicenseQuery, LicenseRecord
from api.node.clock import Clock


class Transaction(Protocol):
    """Licenses locked in id order, read, and changed in one commit. Leaving it without `commit` changes nothing."""

    known: list[LicenseRecord]

    def commit(self, batch: Batch) -> None:
        """Writes the batch and ends the transaction; the log's head is locked only inside this one message."""


class Ledger(Protocol):
    """Every method raises `LedgerError`. One statement, or one message of them, per batch whatever its size."""

    database: Database

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        """What is known for each query, in their order, read at one moment without locking anything."""

    def has_event(self, event_id: str) -> bool:
        """Whether the log has this event."""

    def append(self, batch: Batch) -> None:
        """Commits events that change no license (`batch.changes` is empty)."""

    def transaction(
        self, queries: Sequence[LicenseQuery], *, skip_locked: bool = False
    ) -> AbstractContextManager[Transaction]:
        """Locks the licenses asked for and reads them; see `Transaction`.

        `skip_locked`: what others hold is not waited for, and is `LicenseRecord.busy`.
        """

    def is_blocked(self) -> bool:
        """Whether others keep every call from being recorded: a lock on a whole table, or on the log's head."""


#: How long one message may take where no client waits for its answer.
PATIENT_S = 2.5


def open_ledger(url: str, writer: str, clock: Clock, *, pool_size: int = 2) -> Ledger:
    """The ledger at `url`. `writer` (an id of this process) keeps its minute counts apart from others'."""
    return ledger_on(Database(url, pool_size=pool_size), writer, clock)


def ledger_on(
    database: Database,
    writer: str,
    clock: Clock,
    *,
    budget_s: float = PATIENT_S,
    terms: AcquirePolicy | None = None,
    hurried: bool = False,
) -> Ledger:
    """The same on a pool of connections that is already there.

    `budget_s`: how long one message may take before the ledger counts as away. `terms`: for its connections.
    `hurried`: a statement, and the wait for a lock, end sooner in `LedgerBusy`.
    """
    if database.is_sqlite:
        from api.ledger.sqlite import SqliteLedger

        return SqliteLedger(database, writer, clock)
    from api.ledger.postgres import PostgresLedger

    return PostgresLedger(database, writer, clock, budget_s, terms or AcquirePolicy(), hurried)
