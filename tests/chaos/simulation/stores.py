"""Where the lease and the heartbeats are: in memory, or the real SQL on a SQLite whose clock is virtual.

The second kind overrides the one clock function that the statements use, and is otherwise what a node runs.
"""

from __future__ import annotations

import contextlib
import copy
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from failover.heartbeat import Beat, HeartbeatStore, Report, SqlHeartbeatStore
from failover.lease import LeaseStore, SqlLeaseStore
from failover.memory import MemoryHeartbeatStore, MemoryLeaseStore
from failover.model import Free, Identity, Kind, Lease
from failover.tables import all_tables
from tests.chaos.simulation.kernel import Owner
from tests.chaos.simulation.network import STORE, Link

T = TypeVar("T")

_JULIAN_1970 = 2440587.5
_DAY = 86_400.0


class Tables(Protocol):
    """Both stores, and how to take and put back a copy of what is in them."""

    @property
    def leases(self) -> Any: ...

    @property
    def heartbeats(self) -> HeartbeatStore: ...

    def save(self) -> Any:
        """A backup."""

    def load(self, saved: Any) -> None:
        """Puts it back."""


class MemoryTables:
    """The twins in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.leases = MemoryLeaseStore(clock)
        self.heartbeats = MemoryHeartbeatStore(clock)

    def save(self) -> Any:
        """What the two hold."""
        return [{name: copy.copy(vars(one)[name]) for name in names} for one, names in self._held()]

    def load(self, saved: Any) -> None:
        """Puts copies of it back."""
        for (one, names), values in zip(self._held(), saved, strict=True):
            for name in names:
                setattr(one, name, copy.copy(values[name]))

    def _held(self) -> list[tuple[Any, tuple[str, ...]]]:
        return [(self.leases, ("_row", "failovers")), (self.heartbeats, ("_rows",))]


class SqlTables:
    """The real statements."""

    is_sqlite = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._set_clock()
        self._engine = create_engine("sqlite://", creator=lambda: self._raw, poolclass=StaticPool)
        all_tables().create_all(self._engine)
        self.leases = SqlLeaseStore(self)
        self.heartbeats = SqlHeartbeatStore(self)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """`failover.database.Storage`."""
        with self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """`failover.database.Storage`: whoever uses it does so within one step, so there is nobody to wait for."""
        with self._engine.begin() as connection:
            yield connection

    def save(self) -> Any:
        """All tables as a database of its own."""
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        self._raw.backup(kept)
        return kept

    def load(self, saved: Any) -> None:
        """Puts it back."""
        saved.backup(self._raw)

    def _set_clock(self) -> None:
        # In days, where the statements turn it back into seconds: the difference of a microsecond is the same twice.
        self._raw.create_function("julianday", 1, lambda _: _JULIAN_1970 + self._clock() / _DAY)


class RemoteLeases:
    """A `LeaseStore` across the network, for one process."""

    def __init__(self, database: Any, owner: Owner, link: Link) -> None:
        self._database, self._owner, self._link = database, owner, link

    def watch(self) -> Lease | None:
        """Reads it there."""
        return self._call("watch", lambda store: store.watch())

    def acquire(self, me: Identity, timeout: float, epoch_seen: int = 0, free: Free | None = None) -> int | None:
        """Tries to take it there."""
        return self._call("acquire", lambda store: store.acquire(me, timeout, epoch_seen, free))

    def renew(self, me: Identity, epoch: int, timeout: float) -> bool:
        """Renews it there."""
        return self._call("renew", lambda store: store.renew(me, epoch, timeout))

    def resign(self, me: Identity, epoch: int) -> bool:
        """Resigns there."""
        return self._call("resign", lambda store: store.resign(me, epoch))

    def hand_over(self, lease: Lease, to: Identity, timeout: float, kind: Kind) -> int | None:
        """Moves it there."""
        how = "fail_back" if kind is Kind.FAILBACK else "hand_over"
        return self._call(how, lambda store: store.hand_over(lease, to, timeout, kind))

    def last_failback_age(self) -> float | None:
        """Reads it there."""
        return self._call("watch", lambda store: store.last_failback_age())

    def _call(self, how: str, work: Callable[[LeaseStore], T]) -> T:
        asked: T = self._database.server.call(
            self._owner, self._link, lambda: self._database.on_lease(self._owner, how, work), STORE
        )
        return asked


class RemoteHeartbeats:
    """A `HeartbeatStore` across the network, for one process."""

    def __init__(self, database: Any, owner: Owner, link: Link) -> None:
        self._database, self._owner, self._link = database, owner, link

    def write(self, identity: Identity, report: Report) -> None:
        """Beats there."""
        self._call(lambda store: store.write(identity, report))

    def read(self) -> Sequence[Beat]:
        """Reads there."""
        return self._call(lambda store: store.read())

    def forget(self, beats: Sequence[Beat]) -> None:
        """Removes there."""
        self._call(lambda store: store.forget(beats))

    def _call(self, work: Callable[[HeartbeatStore], T]) -> T:
        asked: T = self._database.server.call(
            self._owner, self._link, lambda: work(self._database.tables.heartbeats), STORE
        )
        return asked
