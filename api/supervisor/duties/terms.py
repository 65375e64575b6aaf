"""A leader's transaction: it begins with the fence, and the message that ends it is the one that moves the log's head.

A process that lost the lease commits nothing. The lease cannot change hands while such a transaction is open; one that
stands still for two seconds is ended by the database, so that a frozen leader holds up others no longer.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Table

from api.ids import new_id
from api.ledger.log import Change, Journal
from api.ledger.records import Event
from api.node.clock import Clock
from failover import Identity, fence
from failover.errors import NotLeading
from failover.session import Limits

_LIMITS = Limits(statement_ms=2_000, lock_ms=300, idle_ms=2_000)
#: Beyond the server's own limits: only a frozen server gets here.
_GUARD_S = 5.0


class Term:
    """The time in which `me` leads. `epoch` gives the lease's epoch, None while this process does not lead."""

    def __init__(self, journal: Journal, me: Identity, epoch: Callable[[], int | None]) -> None:
        self._journal = journal
        self._me = me
        self._epoch = epoch

    @property
    def leads(self) -> bool:
        """Whether it is worth while to try."""
        return self._epoch() is not None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Writing]:
        """One fenced transaction, committed with its events when the block ends well.

        Raises `NotLeading` where the fence is closed, and `LedgerError`; nothing is changed then.
        """
        epoch, database = self._epoch(), self._journal.database
        if epoch is None:
            raise NotLeading(f"{self._me.node} does not lead")
        with database.writing(_LIMITS) as connection, database.guarded(connection, _GUARD_S):
            sent = self._journal.clock.monotonic()
            ledger_time = fence(connection, self._me, epoch)
            writing = Writing(connection, self._me, epoch, self._journal.clock, ledger_time, sent)
            if not self._journal.clock.is_trusted:
                raise NotLeading("no two clocks agree on the time")
            yield writing
            if writing.events:
                Change(self._journal, connection).commit_all(writing.events, writing.stamped)


class Writing:
    """A fenced transaction in the making: statements on `connection`, and events for its end. `now`: ledger time.

    A database whose clock was set two years ahead must not end every seat and throw the log away: `now` is the time by
    which this node goes, `database_ahead` by how many seconds the database's own, in which beats are kept, differs.
    """

    def __init__(
        self, connection: Connection, me: Identity, epoch: int, clock: Clock, ledger_time: float, sent: float
    ) -> None:
        """`ledger_time`: what the database's clock said when it was asked after `sent` (monotonic)."""
        self.connection = connection
        if connection.dialect.name != "sqlite":
            clock.sample(ledger_time, sent, clock.monotonic())
        self.now = clock.preferred(ledger_time)
        self.database_ahead = ledger_time - self.now
        self.events: list[Event] = []
        self.stamped: defaultdict[Table, list[str]] = defaultdict(list)
        self._me = me
        self._epoch = epoch

    def add_event(
        self, type: str, *, license_id: str | None = None, machine_id: str | None = None, **data: Any
    ) -> Event:
        """Adds an event of now to what will be committed. `data` becomes its JSON."""
        event = Event(
            event_id=new_id(),
            type=type,
            license_id=license_id,
            machine_id=machine_id,
            node=self._me.node,
            instance=self._me.instance,
            epoch=self._epoch,
            mode="normal" if self._me.rank == 1 else "backup",
            occurred_at=self.now,
            data=data,
        )
        self.events.append(event)
        return event

    def stamp(self, table: Table, ids: Iterable[str]) -> None:
        """These rows were changed: they get the `seq` of the last event, so that followers copy them."""
        self.stamped[table].extend(ids)
