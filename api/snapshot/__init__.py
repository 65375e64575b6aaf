"""This node's own copy of what decisions need: it serves when the ledger is away, so it serves always."""

from api.snapshot.copy import SNAPSHOT_NAME, Position, Snapshot, open_snapshot, source_of
from api.snapshot.follower import Follower, require_leave
from api.snapshot.reader import Reader, SnapshotRecord

__all__ = [
    "SNAPSHOT_NAME",
    "Follower",
    "Position",
    "Reader",
    "Snapshot",
    "SnapshotRecord",
    "open_snapshot",
    "require_leave",
    "source_of",
]
