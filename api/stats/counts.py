"""What the ledger counts, for `GET /stats`: licenses, machines, checks, and the cluster.

Licenses are counted by their stored status. `expired` are those of any status whose expiry has passed, whether or not
a policy still maintains them; `expiring_7d` the active ones whose expiry comes within seven days.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, and_, case, func, or_, select

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.log import brief_reading
from api.licensing.model import DAY
from api.node.clock import Clock, timestamp
from api.stats import cluster
from api.stats.last_known import Counts
from api.stats.nodes import nodes
from api.stats.presence import FRESH_S

_MINUTES = 60
#: After so many minutes the whole of the counted checks is read again, for what came late or was rolled up.
_SETTLE_EVERY = 10

_licenses, _machines, _checks, _policies = (
    tables.licenses.c,
    tables.machines.c,
    tables.check_minutes.c,
    tables.policies.c,
)


class Settled(msgspec.Struct, frozen=True):
    """Checks by code and outcome of the minutes before `until` (since the epoch): hardly anything changes there."""

    until: int
    totals: dict[tuple[str, bool], int]


class Counting:
    """Counts the ledger in `database` for `node`, of which old minutes are read now and then only."""

    def __init__(self, database: Database, clock: Clock, node: str, fresh_s: float = FRESH_S) -> None:
        """`fresh_s`: how old the beat of a node that is there may be."""
        self._database, self._clock, self._node = database, clock, node
        self.fresh_s = fresh_s
        self._settled: Settled | None = None

    def counts(self) -> Counts:
        """What the ledger says now. Raises `LedgerError`."""
        now = self._clock.now()
        beating = nodes(self._database, now, self.fresh_s)
        with brief_reading(self._database) as connection:
            settled = self._settled
            if settled is None or int(now // 60) - _MINUTES + 1 - settled.until >= _SETTLE_EVERY:
                settled = self._settled = settle(connection, now)
            return replace(count(connection, now, settled, self._node), nodes=beating)


def count(connection: Connection, now: float, settled: Settled, node: str = "") -> Counts:
    """Counts everything at `now` (ledger time), on top of what `settle` gave lately. `node`: the one that reports."""
    licenses, seats = _count_licenses(connection, now)
    return Counts(
        at=now,
        seq=connection.execute(select(tables.log_head.c.seq)).scalar(),
        licenses=licenses,
        machines={"total": seats, "alive": seats - _count_silent(connection, now)},
        checks=_count_checks(connection, now, settled),
        lease=cluster.lease(connection, now),
        failovers=cluster.failovers(connection),
        sync=cluster.sync(connection, node, now),
    )


def _count_licenses(connection: Connection, now: float) -> tuple[dict[str, int], int]:
    """Licenses by status, and the seats they hold, in one pass over one table."""
    expired = case((_licenses.expires_at <= now, 1), else_=0)
    expiring = case((and_(_licenses.expires_at > now, _licenses.expires_at <= now + 7 * DAY), 1), else_=0)
    sums = (func.count(), func.sum(_licenses.seats), func.sum(expired), func.sum(expiring))
    rows = connection.execute(select(_licenses.status, *sums).group_by(_licenses.status)).all()
    found = {status: [int(number) for number in numbers] for status, *numbers in rows}
    active, suspended, banned = (found.get(status, [0, 0, 0, 0]) for status in ("active", "suspended", "banned"))
    counts = {
        "total": sum(numbers[0] for numbers in found.values()),
        "active": active[0],
        "suspended": suspended[0],
        "banned": banned[0],
        "expired": sum(numbers[2] for numbers in found.values()),
        "expiring_7d": active[3],
    }
    return counts, sum(numbers[1] for numbers in found.values())


def _count_silent(connection: Connection, now: float) -> int:
    """Machines that hold a seat and have been silent for longer than their policy's heartbeat."""
    policies_of = defaultdict(list)
    for id, rules in connection.execute(select(_policies.id, _policies.rules_json)):
        interval = msgspec.json.decode(rules).get("machine_heartbeat_s")
        if interval is not None:
            policies_of[interval].append(id)
    if not policies_of:
        return 0
    silent = or_(
        *(
            and_(_licenses.policy.in_(ids), func.coalesce(_machines.heartbeat_at, 0.0) < now - interval)
            for interval, ids in policies_of.items()
        )
    )
    joined = tables.machines.join(tables.licenses, _machines.license_id == _licenses.id)
    return int(
        connection.execute(select(func.count()).select_from(joined).where(_machines.active, silent)).scalar_one()
    )


def settle(connection: Connection, now: float) -> Settled:
    """The checks of all minutes before the last hour's. Reads the whole table, which lasts on an old ledger."""
    until = int(now // 60) - _MINUTES + 1
    query = select(_checks.code, _checks.valid, func.sum(_checks.count)).where(_checks.minute < until)
    rows = connection.execute(query.group_by(_checks.code, _checks.valid)).all()
    return Settled(until, {(code, valid): int(number) for code, valid, number in rows})


def _count_checks(connection: Connection, now: float, settled: Settled) -> dict[str, Any]:
    query = select(_checks.minute, _checks.code, _checks.valid, func.sum(_checks.count))
    query = query.where(_checks.minute >= settled.until).group_by(_checks.minute, _checks.code, _checks.valid)
    minutes, totals = Counter[tuple[int, bool]](), Counter(settled.totals)
    for minute, code, valid, number in connection.execute(query):
        minutes[minute, valid] += int(number)
        totals[code, valid] += int(number)
    by_code, by_outcome = Counter[str](), Counter[bool]()
    for (code, valid), number in totals.items():
        by_code[code] += number
        by_outcome[valid] += number
    last = int(now // 60)
    per_minute = [
        {"at": timestamp(at * 60), "valid": minutes[at, True], "denied": minutes[at, False]}
        for at in range(last - _MINUTES + 1, last + 1)
    ]
    return {
        "total": by_outcome.total(),
        "valid": by_outcome[True],
        "denied": by_outcome[False],
        "by_code": dict(by_code),
        "last_hour": sum(number for (at, _), number in minutes.items() if at > last - _MINUTES),
        "per_minute": per_minute,
    }
