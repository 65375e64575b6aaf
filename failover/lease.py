"""The lease: who leads, until when, with which epoch. Kept in the database, fenced there, trusted here for a while.

`LeaseStore` is the seam; `SqlLeaseStore` keeps it on SQLite or Postgres, `failover.memory` has its twin for tests.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sqlalchemy import Connection

from failover import sql
from failover.database import Storage
from failover.errors import NotLeading
from failover.model import Free, Identity, Kind, Lease

LEASE_NAME = "leader"


class LeaseStore(Protocol):
    """Where the lease is kept. All durations in seconds. Every method may raise `StoreUnavailable` or `StoreBusy`."""

    def watch(self) -> Lease | None:
        """The lease as it is, without locking anything; None where no process ever led."""

    def acquire(self, me: Identity, timeout: float, epoch_seen: int = 0, free: Free | None = None) -> int | None:
        """Takes a lease that has ended; gives its new epoch, above `epoch_seen` too, or None: lost to another.

        `free`: what the caller found to be over, and is taken if it is still the same; without it the database's clock
        decides, which may have been set.
        """

    def renew(self, me: Identity, epoch: int, timeout: float) -> bool:
        """Lets the lease last `timeout` from now. False: it is another's, step down at once."""

    def resign(self, me: Identity, epoch: int) -> bool:
        """Ends the lease now; its epoch is kept. False: it was not this holder's, or resigned already."""

    def hand_over(self, lease: Lease, to: Identity, timeout: float, kind: Kind) -> int | None:
        """Moves `lease` to another holder with the next epoch, in one transaction; None: it has changed meanwhile."""

    def last_failback_age(self) -> float | None:
        """How long ago the lease was last handed back to rank 1, by the database's clock; None: never."""


class SqlLeaseStore:
    """The lease as one row of table `lease`, by name."""

    def __init__(self, storage: Storage, name: str = LEASE_NAME) -> None:
        self._storage = storage
        self._name = name

    def watch(self) -> Lease | None:
        """The lease as it is, read without a lock; None where no process ever led."""
        with self._storage.reading() as connection:
            return self._read(connection)

    def acquire(self, me: Identity, timeout: float, epoch_seen: int = 0, free: Free | None = None) -> int | None:
        """One compare-and-set: inserts, or updates where the lease read has ended and is still the one read."""
        with self._storage.writing() as connection:
            read = free.lease if free else self._read(connection)
            epoch_read = read.epoch if read else 0
            epoch = max(epoch_read, epoch_seen) + 1
            values = {**_columns(me), "epoch": epoch, "epoch_read": epoch_read, "timeout": timeout}
            if free is not None:
                changed = self._run(connection, sql.ACQUIRE_FOUND, **values, expires_at_read=free.lease.expires_at)
            else:
                changed = self._run(connection, sql.ACQUIRE, **values)
            if changed != 1:
                return None
            if read is not None and read.holder.node != me.node:
                silent_s = free.silent_s if free else max(0.0, read.silent_s(timeout))
                self._record(connection, read, me, epoch, Kind.TAKEOVER, silent_s)
            return epoch

    def renew(self, me: Identity, epoch: int, timeout: float) -> bool:
        """By holder and epoch. No row: another has it, or its epoch has moved on."""
        storage = self._storage
        # On Postgres the message that stands alone is a transaction, and the only one: a renewal goes out every beat.
        with storage.writing() if storage.is_sqlite else storage.reading() as connection:
            return self._run(connection, sql.RENEW, holder=me.instance, epoch=epoch, timeout=timeout) == 1

    def resign(self, me: Identity, epoch: int) -> bool:
        """Expires the row and leaves it where it is."""
        with self._storage.writing() as connection:
            return self._run(connection, sql.RESIGN, holder=me.instance, epoch=epoch) == 1

    def hand_over(self, lease: Lease, to: Identity, timeout: float, kind: Kind) -> int | None:
        """One update by the holder and epoch that were read, waiting for fenced transactions in flight."""
        columns = _columns(to)
        values = {**columns, "to_holder": columns["holder"], "holder": lease.holder.instance, "timeout": timeout}
        epoch = lease.epoch + 1
        with self._storage.writing() as connection:
            if self._run(connection, sql.HAND_OVER, **values, epoch=epoch, epoch_read=lease.epoch) != 1:
                return None
            self._record(connection, lease, to, epoch, kind, 0.0)
            return epoch

    def last_failback_age(self) -> float | None:
        """Seconds since the newest failback among the failovers; below 0 where the database's clock was set back."""
        with self._storage.reading() as connection:
            age = connection.execute(sql.statement(sql.LAST_FAILBACK, self._storage.is_sqlite)).scalar()
            return None if age is None else float(age)

    @contextlib.contextmanager
    def fenced(self, me: Identity, epoch: int) -> Iterator[Connection]:
        """One transaction that commits only while `me` holds the lease with `epoch`. Raises `NotLeading`."""
        with self._storage.writing() as connection:
            fence(connection, me, epoch, self._name)
            yield connection

    def _read(self, connection: Connection) -> Lease | None:
        found = connection.execute(sql.statement(sql.WATCH, self._storage.is_sqlite), {"name": self._name}).first()
        if found is None:
            return None
        holder = Identity(found.holder, found.node, found.rank)
        resigned = found.expires_at <= sql.RESIGNED
        return Lease(holder, found.epoch, found.acquired_at, float(found.expires_in), resigned, found.expires_at)

    def _record(self, connection: Connection, before: Lease, to: Identity, epoch: int, kind: Kind, gap: float) -> None:
        names = {"from_node": before.holder.node, "to_node": to.node, "kind": kind.value}
        self._run(connection, sql.RECORD, epoch=epoch, gap_s=gap, **names)

    def _run(self, connection: Connection, statement: str, **values: Any) -> int:
        """How many rows `statement` changed."""
        prepared = sql.statement(statement, self._storage.is_sqlite).execution_options(preserve_rowcount=True)
        return connection.execute(prepared, {"name": self._name, **values}).rowcount


def fence(connection: Connection, me: Identity, epoch: int, name: str = LEASE_NAME) -> float:
    """First in every transaction that only the leader may commit; gives the database's time. Raises `NotLeading`."""
    statement = sql.statement(sql.FENCE, connection.dialect.name == "sqlite")
    now = connection.execute(statement, {"name": name, "holder": me.instance, "epoch": epoch}).scalar()
    if now is None:
        raise NotLeading(f"epoch {epoch} is not held by {me.node}")
    return float(now)


class Trust:
    """A node's own belief in its lease: computed from when the last good renewal was *sent*, at the point of use."""

    def __init__(self, trust_s: float, monotonic: Callable[[], float]) -> None:
        self._trust_s = trust_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._held: tuple[int, float] | None = None

    def renewed(self, epoch: int, sent: float) -> None:
        """A renewal or an acquisition that was sent at `sent` (monotonic) succeeded, however late its answer came."""
        with self._lock:
            self._held = (epoch, sent)

    def lost(self) -> None:
        """The lease is another's, or resigned."""
        with self._lock:
            self._held = None

    @property
    def epoch(self) -> int | None:
        """The epoch of the lease this node had last, trusted still or not; None once it is known to be lost."""
        held = self._held
        return held[0] if held else None

    @property
    def renewed_at(self) -> float | None:
        """When the last good renewal was sent."""
        held = self._held
        return held[1] if held else None

    @property
    def until(self) -> float | None:
        """The monotonic moment at which trust ends."""
        held = self._held
        return held[1] + self._trust_s if held else None

    def holds(self) -> bool:
        """Whether this node may act as the leader at this moment."""
        until = self.until
        return until is not None and self._monotonic() < until


def _columns(identity: Identity) -> dict[str, Any]:
    return {"holder": identity.instance, "node": identity.node, "rank": identity.rank}
