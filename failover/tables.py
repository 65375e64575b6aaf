"""The three tables of failover, as functions of a MetaData: the owner of the database decides where they are.

Times are Unix seconds by the database's clock, in double precision.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, String, Table, Text, UniqueConstraint

_ID = String(36)

#: For a few rows that are updated all day long. Dead versions go with the next update of their page, so there is
#: nothing to vacuum, and to analyze three rows each minute writes more to the log than the updates do.
QUIET = {
    "fillfactor": 50,
    "autovacuum_vacuum_threshold": 10_000,
    "autovacuum_analyze_threshold": 1_000_000,
}


def heartbeats(metadata: MetaData) -> Table:
    """One row per process that beats: its identity, its role, its last beat."""
    return Table(
        "heartbeats",
        metadata,
        Column("instance", _ID, primary_key=True),
        Column("node", String(128), nullable=False),
        Column("rank", Integer, nullable=False),
        Column("role", String(16), nullable=False),
        Column("state", String(16), nullable=False),
        Column("url", String(400)),
        Column("version", String(40), nullable=False),
        Column("started_at", Double, nullable=False),
        Column("beat_at", Double, nullable=False),
        Column("applied_seq", BigInteger, nullable=False, server_default="0"),
        Column("queue", BigInteger, nullable=False, server_default="0"),
        Column("queue_oldest_at", Double),
        Column("settings_digest", Text),
        postgresql_with=QUIET,
    )


def lease(metadata: MetaData) -> Table:
    """One row per lease. `(name, epoch)` is unique so that ACQUIRE changes a key column and waits for a fence."""
    return Table(
        "lease",
        metadata,
        Column("name", String(40), primary_key=True),
        Column("holder", _ID, nullable=False),
        Column("node", String(128), nullable=False),
        Column("rank", Integer, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("acquired_at", Double, nullable=False),
        Column("expires_at", Double, nullable=False),
        UniqueConstraint("name", "epoch"),
        postgresql_with=QUIET,
    )


def failovers(metadata: MetaData) -> Table:
    """One row for each change of the leader. `kind`: takeover, switchover or failback; `gap_s`: how long no one led."""
    return Table(
        "failovers",
        metadata,
        Column("epoch", BigInteger, primary_key=True, autoincrement=False),
        Column("at", Double, nullable=False),
        Column("from_node", String(128)),
        Column("to_node", String(128), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("gap_s", Double),
    )


def all_tables() -> MetaData:
    """A MetaData with these three tables and nothing else, for a database of failover's own."""
    metadata = MetaData()
    for table in (heartbeats, lease, failovers):
        table(metadata)
    return metadata
