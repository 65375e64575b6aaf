"""What the ledger and the nodes' queues have when all is over, as plain values."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field

import requests
from sqlalchemy import select

from api.ledger import tables
from tests.chaos.cluster.site import Host, Site
from tests.support.nodes import rows

CALLS = ("validate", "activate", "deactivate", "ping", "check-in", "usage", "checkout")

_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One event of the log. `origin_seq`: its place in the queue it came through, None if it came directly."""

    seq: int
    type: str
    license_id: str | None
    mode: str
    origin: str | None
    origin_seq: int | None
    recorded_at: float


@dataclass(slots=True)
class Remains:
    """`events` by id. `counted`: what the minutes add up to. `queued`, `dead`: rows in the queues that say so.

    `said_dead`: nodes whose `/stats` say that they have set events aside. `replays`: for each queue, (events, seconds)
    of each stretch in which it was emptied.
    """

    events: dict[str, Row]
    uses: dict[str, int] = field(default_factory=dict)
    seats: dict[tuple[str, str], bool] = field(default_factory=dict)
    counted: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    failovers: Counter[str] = field(default_factory=Counter)
    queued: int = 0
    dead: int = 0
    said_dead: list[str] = field(default_factory=list)
    replays: list[tuple[int, float]] = field(default_factory=list)


def remains(site: Site) -> Remains:
    """Everything that is to be held against the clients' history."""
    table = tables.events.c
    columns = (table.event_id, table.seq, table.type, table.license_id, table.mode, table.origin, table.origin_seq)
    with site.database.reading() as connection:
        found = connection.execute(select(*columns, table.recorded_at).where(table.type.in_(CALLS)))
        left = Remains({id: Row(*rest) for id, *rest in found})
    database = site.database
    left.uses = {row["id"]: row["uses"] for row in rows(database, tables.licenses)}
    left.seats = {(row["license_id"], row["fingerprint"]): row["active"] for row in rows(database, tables.machines)}
    minutes = rows(database, tables.check_minutes)
    left.counted = sum(row["count"] for row in minutes if row["code"] != "NOT_FOUND")
    left.findings = Counter(row["kind"] for row in rows(database, tables.replay_findings))
    left.failovers = Counter(row["kind"] for row in rows(database, tables.failovers))
    left.said_dead = [each for host in site.hosts for each in _said_dead(site, host)]
    for path in site.folder.glob("machine-*/**/sync_queue.db"):
        _add_queue(left, sqlite3.connect(path))
    return left


def _said_dead(site: Site, host: Host) -> list[str]:
    """`sync.dead` in words, where it is not zero; a node that does not answer says nothing."""
    try:
        response = requests.get(
            f"{host.member.server.url}/stats",
            headers={"Authorization": f"Bearer {site.secrets['ADMIN_TOKEN']}"},
            timeout=_PATIENCE_S,
        )
        dead = response.json()["sync"]["dead"]
    except (requests.RequestException, ValueError, KeyError):
        return []
    return [f"{host.id} says that {dead} are"] if dead else []


def _add_queue(left: Remains, queue: sqlite3.Connection) -> None:
    states = dict(queue.execute("SELECT state, count(*) FROM events GROUP BY state"))
    left.queued += states.get("pending", 0)
    left.dead += states.get("dead", 0)
    settled = [at for (at,) in queue.execute("SELECT settled_at FROM events WHERE state = 'synced' ORDER BY 1")]
    queue.close()
    left.replays += _stretches(settled)


def _stretches(settled: list[float]) -> list[tuple[int, float]]:
    """How many events each replay took in, and over how long: a new one begins after a second without any."""
    found: list[list[float]] = []
    for at in settled:
        if not found or at - found[-1][-1] > 1.0:
            found.append([])
        found[-1].append(at)
    return [(len(stretch), stretch[-1] - stretch[0]) for stretch in found]
