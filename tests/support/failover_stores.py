"""The stores of failover as tests use them: in memory, on SQLite, on Postgres, each with a clock that can be moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text

from failover.database import Database
from failover.heartbeat import HeartbeatStore, SqlHeartbeatStore
from failover.lease import LeaseStore, SqlLeaseStore
from failover.memory import MemoryHeartbeatStore, MemoryLeaseStore
from tests.support.clock import FakeClock

#: `kind`, from and to of each failover, oldest first, with the gap in seconds.
Failovers = list[tuple[str, str, str, float]]


@dataclass
class Stores:
    """A pair of stores on one database. `pass_time(s)` makes everything in it `s` seconds older.

    So does a clock that is set forward; below 0, it is set back.
    """

    leases: LeaseStore
    heartbeats: HeartbeatStore
    pass_time: Callable[[float], None]
    failovers: Callable[[], Failovers]
    database: Database | None = None


def in_memory() -> Stores:
    clock = FakeClock(1_764_000_000.0)
    leases = MemoryLeaseStore(clock)

    def failovers() -> Failovers:
        return [(row.kind.value, row.from_node, row.to_node, row.gap_s) for row in leases.failovers]

    return Stores(leases, MemoryHeartbeatStore(clock), clock.move, failovers)


def in_database(url: str) -> Stores:
    database = Database(url)

    def pass_time(seconds: float) -> None:
        with database.writing() as connection:
            for table, columns in _TIMES.items():
                # What is 0 is no moment, but the sign of a lease that was resigned.
                moved = ", ".join(f"{name} = CASE {name} WHEN 0 THEN 0 ELSE {name} - :seconds END" for name in columns)
                connection.execute(text(f"UPDATE {table} SET {moved}"), {"seconds": seconds})

    def failovers() -> Failovers:
        with database.reading() as connection:
            rows = connection.execute(text("SELECT kind, from_node, to_node, gap_s FROM failovers ORDER BY epoch"))
            return [(row[0], row[1], row[2], row[3]) for row in rows]

    return Stores(SqlLeaseStore(database), SqlHeartbeatStore(database), pass_time, failovers, database)


_TIMES = {
    "lease": ("acquired_at", "expires_at"),
    "heartbeats": ("started_at", "beat_at", "queue_oldest_at"),
    "failovers": ("at",),
}
