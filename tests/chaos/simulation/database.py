"""The database: the lease, the heartbeats and the license ledger behind one server, with locks and transactions.

What runs at it runs in one step. A transaction that stays open is ended after 2 s without a statement, as the settings
of the real one say; one behind the fence keeps the lease from changing hands until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from api.ledger.errors import LedgerError, LedgerRefused, LedgerUnavailable
from api.ledger.records import Batch, LicenseRecord
from failover.lease import LeaseStore
from tests.chaos.simulation.books import Books, Effect
from tests.chaos.simulation.kernel import Kernel, Owner, Timer
from tests.chaos.simulation.ledger_clock import LedgerClock
from tests.chaos.simulation.network import Blocked, Server
from tests.chaos.simulation.stores import Tables

_IDLE_S = 2.0


@dataclass(eq=False)
class Transaction:
    """Locks that are held until it ends. `fence`: the epoch behind which it stands."""

    owner: Owner
    licenses: tuple[str, ...] = ()
    fence: int | None = None
    open: bool = True
    idle: Timer | None = None
    overdue: bool = False


class NoRight(LedgerUnavailable):
    """`machines` was revoked from the nodes' role: whatever looks a license up is refused."""

    sqlstate, answered = "42501", True


class NoMore(LedgerRefused):
    """An operator added a constraint to `events` that no row fulfils."""

    sqlstate, answered = "23514", True


@dataclass(frozen=True)
class Backup:
    """A state of everything, to come back to."""

    tables: Any
    books: Books


@dataclass
class Observer:
    """Who is told what happened at the database, in the step in which it did."""

    lease_changed: Callable[[Owner, str], None] = lambda owner, how: None
    committed: Callable[[Owner, Batch], None] = lambda owner, batch: None
    effect: Callable[[Owner, Effect], None] = lambda owner, effect: None
    restored: Callable[[Books, Books], None] = lambda before, after: None


@dataclass
class Database:
    """All of it. `incarnation` counts how often an older copy was put in its place."""

    kernel: Kernel
    clock: LedgerClock
    tables: Tables
    books: Books
    observer: Observer = field(default_factory=Observer)
    incarnation: int = 0

    def __post_init__(self) -> None:
        self.server = Server(self.kernel)
        self.open: list[Transaction] = []
        #: What refuses everybody at this moment, each once for everyone who put it there.
        self.refusals: list[type[LedgerError]] = []

    def now(self) -> float:
        """Its clock."""
        return self.clock.now()

    # -- the lease ------------------------------------------------------------------------------------------------

    def on_lease(self, owner: Owner, how: str, work: Callable[[LeaseStore], Any]) -> Any:
        """Changes the lease, or reads it. What would change hands waits for the fence."""
        if how in ("acquire", "hand_over", "fail_back") and any(one.fence is not None for one in self.open):
            raise Blocked
        result = work(self.tables.leases)
        if how != "watch":
            self.observer.lease_changed(owner, how if result else "")
        return result

    def begin_fenced(self, owner: Owner, me: Any, epoch: int) -> Transaction:
        """A transaction of the leader. Raises `NotLeading`."""
        with self.tables.leases.fenced(me, epoch):
            return self._begin(Transaction(owner, fence=epoch))

    def commit_fenced(self, transaction: Transaction, effect: Effect, batch: Batch | None) -> None:
        """Ends it, with what it did."""
        self._still(transaction)
        self.books.effects.append(effect)
        self.observer.effect(transaction.owner, effect)
        if batch is not None and batch.events:
            self.books.write(batch, self.now())
            self.observer.committed(transaction.owner, batch)
        self.end(transaction)

    # -- the licenses ---------------------------------------------------------------------------------------------

    def look_up(self, queries: Sequence[str]) -> list[LicenseRecord]:
        """What is known of these keys."""
        self._refuse(NoRight)
        return [self.books.known(key) for key in queries]

    def append(self, owner: Owner, batch: Batch) -> int:
        """One message that commits."""
        self._refuse(NoMore)
        head = self.books.write(batch, self.now())
        self.observer.committed(owner, batch)
        return head

    def begin(
        self, owner: Owner, queries: Sequence[tuple[str, str | None]], *, skip_locked: bool = False
    ) -> tuple[Transaction, list[LicenseRecord]]:
        """Locks the licenses of these keys and reads what the asks (key hash, event id) want."""
        self._refuse(NoRight)
        ids = dict.fromkeys(self.books.by_key[key] for key, _ in queries if key in self.books.by_key)
        held = {id for one in self.open for id in one.licenses if id in ids}
        if held and not skip_locked:
            raise Blocked
        transaction = self._begin(Transaction(owner, tuple(id for id in ids if id not in held)))
        return transaction, [
            LicenseRecord(None, busy=True) if self.books.by_key.get(key) in held else self.books.known(key, event_id)
            for key, event_id in queries
        ]

    def commit(self, transaction: Transaction, batch: Batch) -> int:
        """Ends it; all of the batch or nothing."""
        self._still(transaction)
        try:
            return self.append(transaction.owner, batch)
        finally:
            self.end(transaction)

    def end(self, transaction: Transaction) -> None:
        """Releases its locks, whatever it did. Twice is once."""
        if transaction.open:
            transaction.open = False
            self.open.remove(transaction)
            if transaction.idle is not None:
                transaction.idle.cancel()
            self.server.release()

    def _begin(self, transaction: Transaction) -> Transaction:
        self.open.append(transaction)
        transaction.idle = self.kernel.at(_IDLE_S, lambda: self._idle(transaction))
        return transaction

    def _idle(self, transaction: Transaction) -> None:
        transaction.overdue = True
        if self.server.mode == "up":
            self.end(transaction)

    def _refuse(self, kind: type[LedgerError]) -> None:
        if kind in self.refusals:
            raise kind(kind.__name__)

    def _still(self, transaction: Transaction) -> None:
        if not transaction.open:
            raise LedgerUnavailable("the transaction was ended")

    # -- what becomes of the server -------------------------------------------------------------------------------

    def freeze(self) -> None:
        """It does nothing any more, and takes packets."""
        if self.server.mode == "up":
            self.server.mode = "frozen"

    def stop(self) -> None:
        """It ends, and every transaction with it."""
        self.server.stop()
        for transaction in list(self.open):
            self.end(transaction)

    def start(self, overdue_first: bool = True) -> None:
        """It goes on; after a freeze with what was in its sockets."""
        if overdue_first:
            for transaction in [one for one in self.open if one.overdue]:
                self.end(transaction)
        self.server.thaw()
        for transaction in [one for one in self.open if one.overdue]:
            self.kernel.at(0.001, partial(self.end, transaction))

    def backup(self) -> Backup:
        """What could be restored later."""
        return Backup(self.tables.save(), self.books.copy())

    def restore(self, backup: Backup, *, says_so: bool) -> None:
        """Puts an older copy in its place. `says_so`: whoever did it raised the ledger's generation."""
        before = self.books
        self.tables.load(backup.tables)
        self.books = backup.books.copy()
        self.incarnation += 1
        if says_so:
            self.books.generation = before.generation + 1
        self.observer.restored(before, self.books)
