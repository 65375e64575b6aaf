"""What a node last knew of the whole cluster, kept on its disk: for `/stats` while the ledger cannot be asked.

The supervisor writes it now and then; any worker of the node reads it, one that started without the ledger above all.
What goes on by the clock goes on in here as well: a lease runs out, a beat gets old, an hour passes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from api.stats import cluster, presence

#: The file's name in `DATA_DIR`.
FILE_NAME = "last-known.json"
_HOUR_S = 3600.0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger counted `at` one moment of its own time, in the shapes of `/stats`; `at` None: it never did.

    `seq` is the log's head.
    """

    at: float | None
    seq: int | None
    licenses: Mapping[str, int | None]
    machines: Mapping[str, int | None]
    checks: Mapping[str, Any]
    nodes: Sequence[Mapping[str, Any]] = ()
    lease: Mapping[str, Any] = msgspec.field(default_factory=lambda: dict(cluster.NO_LEASE))
    failovers: Sequence[Mapping[str, Any]] = ()
    sync: Mapping[str, Any] = msgspec.field(default_factory=lambda: dict(cluster.NO_SYNC))


#: For a node that has not reached its ledger yet, nor ever did.
UNKNOWN = Counts(
    at=None,
    seq=None,
    licenses=dict.fromkeys(("total", "active", "suspended", "banned", "expired", "expiring_7d")),
    machines=dict.fromkeys(("total", "alive")),
    checks={**dict.fromkeys(("total", "valid", "denied")), "by_code": {}, "last_hour": None, "per_minute": []},
)


def save_last_known(folder: Path, counts: Counts) -> None:
    """Replaces what was known before, as one step. Raises OSError."""
    fresh = folder / f"{FILE_NAME}.new"
    fresh.write_bytes(msgspec.json.encode(counts))
    os.replace(fresh, folder / FILE_NAME)  # noqa: PTH105 - as a path's method it says less


def last_known_counts(folder: Path) -> Counts:
    """What was last written; `UNKNOWN` where there is nothing, or nothing that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Counts)
    return UNKNOWN


def aged(counts: Counts, now: float, fresh_s: float = presence.FRESH_S) -> Counts:
    """What `counts` come to at `now` (ledger time), when no beat has come since; `fresh_s`: how old one may be."""
    if counts.at is None:
        return counts
    passed = max(0.0, now - counts.at)
    return replace(
        counts,
        lease=_run_on(counts.lease, passed),
        nodes=[presence.aged(node, node["beat_age_s"] + passed, fresh_s) for node in counts.nodes],
        checks={**counts.checks, "last_hour": _of_the_last_hour(counts.checks["per_minute"], now)},
    )


def _run_on(lease: Mapping[str, Any], passed: float) -> dict[str, Any]:
    left = None if lease["expires_in_s"] is None else round(lease["expires_in_s"] - passed, 1)
    over = left is None or left <= 0
    return {**lease, "holder": None if over else lease["holder"], "expires_in_s": None if over else left}


def _of_the_last_hour(per_minute: Sequence[Mapping[str, Any]], now: float) -> int:
    """Those of whole minutes, as `/stats` counts them."""
    first = now // 60 * 60 - _HOUR_S
    return sum(
        minute["valid"] + minute["denied"]
        for minute in per_minute
        if datetime.fromisoformat(minute["at"]).timestamp() > first
    )
