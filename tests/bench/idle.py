"""What nodes cost that nobody asks: three with default settings on one Postgres, each by way of a link that counts.

A message is what goes over the wire at once; it may hold several statements. The log is measured from one checkpoint
on, after which every page is written whole once: for five minutes, by default, as long as it is to the next.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from tests.bench.machine import Tree
from tests.chaos.cluster.links import Link, network
from tests.support.cluster import Member, Site
from tests.support.postgres import PostgresServer, free_port
from tests.support.processes import until
from tests.support.wire import Message, Overheard

_DAY_S = 86_400.0
#: A node that has just started looks around, workers' idle threads end, and autovacuum comes once a minute.
_SETTLE_S = 75.0
_WORKERS = "2"


@dataclass
class Idle:
    """What so many nodes did together in `seconds` without a call. Bytes a day; CPU: percent of a core for each node.

    `messages`, `set_and_said`: messages, and all statements in them, a second; `received`: out of the database; `sent`:
    into it; `of_messages`: how often what is named so was asked.
    """

    nodes: int
    seconds: float
    messages: float = 0.0
    set_and_said: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    wal: float = 0.0
    cpu: list[float] = field(default_factory=list)
    of_messages: Counter[str] = field(default_factory=Counter)


def measured(postgres: PostgresServer, folder: Path, nodes: int, seconds: float) -> Idle:
    """Starts the nodes, leaves them alone, and measures for `seconds`, from a checkpoint on."""
    found = Idle(nodes, seconds)
    url = postgres.create_database("idle")
    with ExitStack() as ends:
        net, site = ends.enter_context(network()), ends.enter_context(closing(Site(url, folder)))
        links = [net.link(free_port(), postgres.port) for _ in range(nodes)]
        overheard = [Overheard() for _ in links]
        for link, each in zip(links, overheard, strict=True):
            link.tap = each
        members = [_started(site, url, link, rank) for rank, link in enumerate(links, start=1)]
        until(lambda: len(members[0].stats()["nodes"]) == nodes, "all nodes beat", 60)
        _settle(postgres, min(_SETTLE_S, seconds))
        _measure(url, links, members, overheard, found)
    return found


def _started(site: Site, url: str, link: Link, rank: int) -> Member:
    by_link = url.replace(f":{link.target}/", f":{link.port}/")
    return site.node(rank, DATABASE_URL=by_link, FAILBACK_DELAY="30", WEB_CONCURRENCY=_WORKERS).ready()


def _settle(postgres: PostgresServer, seconds: float) -> None:
    """A server's catalogs that were made a minute ago are vacuumed and analyzed, which is no part of a day to come."""
    for name in ("template1", "postgres", "idle"):
        with closing(psycopg2.connect(postgres.url(name))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in ("VACUUM (FREEZE, ANALYZE)", "VACUUM (FREEZE) pg_catalog.pg_statistic"):
                    cursor.execute(statement)
    time.sleep(seconds)


def _measure(url: str, links: list[Link], members: list[Member], overheard: list[Overheard], found: Idle) -> None:
    trees = [Tree(member.server.process) for member in members]
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            log = _log(connection)  # before it: pages that are written while it is under way are written whole
            cursor.execute("CHECKPOINT")
        began = time.monotonic()
        passed, cpu = [dict(link.passed) for link in links], [tree.cpu_s() for tree in trees]
        time.sleep(found.seconds)
        took = time.monotonic() - began
        found.wal = _DAY_S / took * (_log(connection) - log)
        found.cpu = [100 * (tree.cpu_s() - before) / took for tree, before in zip(trees, cpu, strict=True)]
        grown = [{way: link.passed[way] - was[way] for way in was} for link, was in zip(links, passed, strict=True)]
        found.received, found.sent = (_DAY_S / took * sum(each[way] for each in grown) for way in ("down", "up"))
    asked = [message for each in overheard for message in each.since(began)]
    found.messages = len(asked) / took
    found.set_and_said = sum(len(message.statements) for message in asked) / took
    for message in asked:
        found.of_messages[_named(message)] += 1


def _named(message: Message) -> str:
    """What it is about, without what every message sets first and whose it is."""
    said = [statement for statement in message.statements if not statement.startswith("SET LOCAL")]
    return " ".join(re.sub(r"\s*=\s*('[^']*'|[\d.]+).*", "", " ".join("; ".join(said).split())).split())[:70]


def _log(connection: psycopg2.extensions.connection) -> int:
    """How much write-ahead log there was ever."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        (position,) = cursor.fetchone() or (0,)
    return int(position)
