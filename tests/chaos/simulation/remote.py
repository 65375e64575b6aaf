"""What the real recorder stands on: a ledger across the network, lanes that share commits, a reader of the copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet
from msgspec.structs import replace

from api.checks.batcher import last_lane
from api.ledger.errors import LedgerUnavailable
from api.ledger.records import Batch, Change, LicenseQuery, LicenseRecord
from api.ledger.rows import changed_machines
from api.licensing import Holding
from api.node.change_marks import ChangeMarks
from api.snapshot.copy import Position
from api.snapshot.reader import MAX_AGE_S, SnapshotRecord
from tests.chaos.simulation.database import Database, Transaction
from tests.chaos.simulation.disk import Disk
from tests.chaos.simulation.kernel import Kernel, Owner
from tests.chaos.simulation.network import READ, RECORD, Kind, Link

T = TypeVar("T")
Flush = Callable[[list[Any]], Sequence[Any]]
NextLane = Callable[[Any, Any], Any]


class Remote:
    """One process's way to the ledger; `api.ledger.store.Ledger` for its recorder."""

    def __init__(self, database: Database, owner: Owner, link: Link) -> None:
        self.database, self._owner, self._link = database, owner, link

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        """At one moment."""
        return self.ask(lambda: self.database.look_up([query.key_hash for query in queries]), RECORD)

    def has_event(self, event_id: str) -> bool:
        """Whether the log has it."""
        return self.ask(lambda: event_id in self.database.books.place, RECORD)

    def append(self, batch: Batch) -> None:
        """One message."""
        self.ask(lambda: self.database.append(self._owner, batch), RECORD)

    @contextlib.contextmanager
    def transaction(
        self, queries: Sequence[LicenseQuery], kind: Kind = RECORD, *, skip_locked: bool = False
    ) -> Iterator[OpenTransaction]:
        """Locks and reads in one message, writes and commits in another."""
        wanted = [(query.key_hash, query.event_id) for query in queries]
        started: list[Transaction] = []

        def begin() -> list[LicenseRecord]:
            transaction, known = self.database.begin(self._owner, wanted, skip_locked=skip_locked)
            started.append(transaction)
            return known

        try:
            yield OpenTransaction(self, self.ask(begin, kind), started, kind)
        except GreenletExit:
            raise  # the process is gone: it sends nothing
        finally:
            for transaction in started:
                self._hang_up(transaction)

    def is_blocked(self) -> bool:
        """Nobody locks a whole table here."""
        return False

    def ask(self, work: Callable[[], T], kind: Kind = READ) -> T:
        """Anything, in one message."""
        return self.database.server.call(self._owner, self._link, work, kind)

    def _hang_up(self, transaction: Transaction) -> None:
        """The server learns that the connection is closed, if anything gets through."""
        if transaction.open and not self._link.out_cut:
            self.database.kernel.at(self._link.delay(), lambda: self.database.end(transaction))


class OpenTransaction:
    """`api.ledger.store.Transaction`."""

    def __init__(self, remote: Remote, known: list[LicenseRecord], started: list[Transaction], kind: Kind) -> None:
        self.known = known
        self._remote, self._started, self._kind = remote, started, kind

    def commit(self, batch: Batch) -> None:
        """All or nothing."""
        database = self._remote.database
        self._remote.ask(lambda: database.commit(self._started[0], batch), self._kind)


class Lane:
    """`api.checks.batcher.Batcher` for tasks, which may wait: the first of those who do flushes for all."""

    def __init__(self, kernel: Kernel, owner: Owner, flush: Flush, next_lane: NextLane = last_lane) -> None:
        self._kernel, self._owner, self._flush, self._next_lane = kernel, owner, flush, next_lane
        self._line: list[tuple[Any, greenlet]] = []
        self._busy = False

    def begin(self, item: Any, finish: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
        """Calls `done` with what `finish` makes of the outcome for `item`, or with the exception that it is."""
        self._line.append((item, getcurrent()))
        outcome = self._kernel.park() if self._busy else None
        if outcome is None:
            outcome = self._lead()
        step = self._next_lane(item, outcome[0])
        if step is not None:
            lane, item = step
            lane.begin(item, finish, done)
            return
        done(outcome[0] if isinstance(outcome[0], BaseException) else finish(outcome[0]))

    def _lead(self) -> tuple[Any]:
        self._busy = True
        batch, self._line = self._line[:64], self._line[64:]
        try:
            outcomes = list(self._flush([item for item, _ in batch]))
        except Exception as error:
            outcomes = [error] * len(batch)
            if isinstance(error, LedgerUnavailable):
                batch, self._line = batch + self._line, []
                outcomes = [error] * len(batch)
        self._busy = False
        mine = getcurrent()
        for (_, task), outcome in zip(batch, outcomes, strict=True):
            if task is not mine:
                self._wake(task, (outcome,))
        if self._line:
            self._busy = True
            self._wake(self._line[0][1], None)
        return (outcomes[[task for _, task in batch].index(mine)],)

    def _wake(self, task: greenlet, value: Any) -> None:
        self._kernel.at(0.0, lambda: task.switch(value), self._owner)


class CopyReader:
    """`api.snapshot.reader.Reader` on the simulated disk, with the same rules."""

    def __init__(self, disk: Disk, changes: ChangeMarks, monotonic: Callable[[], float], longest_s: float) -> None:
        self._disk, self._changes, self._monotonic, self._longest_s = disk, changes, monotonic, longest_s

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[SnapshotRecord | None]:
        """For checks, where the copy is fresh."""
        position, now = self._position(), self._monotonic()
        if position is None or not 0.0 <= now - position.polled_at < MAX_AGE_S:
            return [None] * len(queries)
        return [
            SnapshotRecord(self._known(query), position.as_of)
            if self._changes.changed_at(query.key_hash) < position.polled_at
            else None
            for query in queries
        ]

    def look_up_isolated(
        self, queries: Sequence[LicenseQuery], now: float, *, fully: bool = True
    ) -> list[SnapshotRecord] | None:
        """For a node that is cut off."""
        position = self.usable(now)
        return None if position is None else [SnapshotRecord(self._known(query), position.as_of) for query in queries]

    def usable(self, now: float) -> Position | None:
        """Where the copy stands, if it is young enough to answer from alone."""
        position = self._position()
        return position if position is not None and now - position.as_of <= self._longest_s else None

    def put_own(self, changes: Sequence[tuple[Change, int]], *, queued: bool = False) -> None:
        """What this node made of licenses, over the rows that it knew."""
        if (copy := self._disk.snapshot) is not None:
            for change, seq in changes:
                id = change.after.license.id
                row = copy.rows.get(id)
                if queued or id in copy.own:
                    copy.own[id] = copy.own.get(id, 0) + 1
                if row is not None and row.seq <= seq:
                    copy.rows[id] = row._replace(holding=_put_over(row.holding, change))
                    copy.ahead.add(id)

    def _position(self) -> Position | None:
        copy = self._disk.snapshot
        if copy is None or not copy.complete:
            return None
        return Position(copy.ledger_id, copy.generation, copy.seq, copy.event_id, copy.as_of, copy.polled_at, True)

    def _known(self, query: LicenseQuery) -> LicenseRecord:
        copy = self._disk.snapshot
        assert copy is not None
        row = copy.rows.get(copy.by_key.get(query.key_hash, ""))
        return LicenseRecord(None) if row is None else LicenseRecord(row.holding, seq=row.seq)


def _put_over(holding: Holding, change: Change) -> Holding:
    """What `SnapshotWriter.put_own` writes, and no more: an admin's part of the license stays as it is."""
    after = change.after
    own = {name: getattr(after.license, name) for name in ("expires_at", "uses", "checked_in_at", "last_seen_at")}
    changed = {machine.fingerprint: machine for machine in changed_machines(change.before, after)}
    return replace(
        holding,
        license=replace(holding.license, **own),
        seats=after.seats,
        excess=after.excess,
        machines={**holding.machines, **changed},
    )
