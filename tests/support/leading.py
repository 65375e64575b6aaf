"""A process that leads, for tests of the leader's duties: its lease, its transactions, and what others said of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import insert, select, text, update

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.log import Journal
from api.node.clock import Clock
from api.node.identity import Node
from api.supervisor.duties import Term, Writing
from api.supervisor.duties.rows import put
from failover import Identity, SqlLeaseStore
from failover.database import Database as LeaseDatabase
from tests.support.nodes import Sold

Json = dict[str, Any]


class Leading:
    """Rank 1 (or another) with the lease in epoch 1 for an hour, unless it is told not to take it."""

    def __init__(self, url: str, rank: int = 1, *, takes_it: bool = True) -> None:
        self.database = Database(url)
        self.me = Identity.new(f"node-{rank}", rank)
        self.epoch: int | None = None
        self._leases = LeaseDatabase(url)
        self.leases = SqlLeaseStore(self._leases)
        journal = Journal(self.database, Node(self.me.node, rank, self.me.instance), Clock())
        self.term = Term(journal, self.me, lambda: self.epoch)
        if takes_it:
            assert self.take_the_lease()

    def take_the_lease(self) -> bool:
        """Where it is over; the epoch is this process's then."""
        taken = self.leases.acquire(self.me, 3600.0)
        self.epoch = taken or self.epoch
        return taken is not None

    def do(self, duty: Callable[[Writing], bool], now: float | None = None) -> bool:
        """One chunk of `duty`, at `now` if that is given; gives whether there may be more."""
        with self.term.transaction() as writing:
            writing.now = writing.now if now is None else now
            return duty(writing)

    def do_all(self, duty: Callable[[Writing], bool], now: float | None = None) -> int:
        """Chunks of `duty` until there is no more; gives how many."""
        chunks = 1
        while self.do(duty, now):
            chunks += 1
        return chunks

    def end_the_lease(self) -> None:
        """By the ledger's clock it is over; this process has not noticed."""
        with self.database.writing() as connection:
            connection.execute(update(tables.lease).values(expires_at=0))

    def close(self) -> None:
        self.database.close()
        self._leases.close()


@contextlib.contextmanager
def leader_and_standby(url: str) -> Iterator[tuple[Leading, Leading]]:
    with contextlib.closing(Leading(url)) as one, contextlib.closing(Leading(url, 2, takes_it=False)) as two:
        yield one, two


def add_machine(database: Database, sold: Sold, fingerprint: str, **columns: Any) -> str:
    """A machine that holds a seat of the license, counted there; gives its id."""
    id = f"{fingerprint}-{sold.id}"[:36]
    row = {"id": id, "license_id": sold.id, "fingerprint": fingerprint, "active": True, "created_at": 0.0}
    with database.writing() as connection:
        connection.execute(insert(tables.machines), row | columns)
        counted = {"seats": tables.licenses.c.seats + 1}
        connection.execute(update(tables.licenses).where(tables.licenses.c.id == sold.id).values(counted))
    return id


def beat(database: Database, node: str = "node-1", *, age: float = 0.0, **columns: Any) -> None:
    """The last beat of a process, `age` seconds ago."""
    now = time.time()
    row = {"instance": node, "node": node, "rank": int(node[-1]), "role": "standby", "state": "STANDBY", "version": ""}
    row |= {"started_at": now - 1000, "beat_at": now - age, "queue": 0, "applied_seq": 0}
    with database.writing() as connection:
        put(connection, tables.heartbeats, [row | columns])


def add_events(database: Database, *given: Json) -> None:
    """Events with `given` columns, one after the other at the log's end."""
    with database.writing() as connection:
        head = connection.execute(select(tables.log_head.c.seq)).scalar_one()
        common = {"type": "ping", "node": "n", "instance": "i", "epoch": 1, "mode": "normal", "data": "{}"}
        rows = [
            {**common, "seq": seq, "event_id": f"event-{seq}", "occurred_at": 0.0, "recorded_at": 0.0, **columns}
            for seq, columns in enumerate(given, start=head + 1)
        ]
        connection.execute(insert(tables.events), rows)
        connection.execute(text("UPDATE log_head SET seq = :seq"), {"seq": rows[-1]["seq"]})
