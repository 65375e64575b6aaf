"""A node that is told to end takes what its queue holds to the ledger first: its disk may go with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from api.ledger import tables
from api.ledger.migrate import upgrade
from failover import EventQueue
from tests.chaos.cluster.links import Link, network
from tests.support.cluster import Json, Member, Site
from tests.support.nodes import Sold, rows
from tests.support.processes import free_port, until


@pytest.fixture
def way(empty_postgres_url: str) -> Iterator[Link]:
    """The nodes' way to the database; the test's own does not lead through it."""
    with network() as net:
        yield net.link(free_port(), make_url(empty_postgres_url).port or 5432)


@pytest.fixture
def site(empty_postgres_url: str, way: Link, tmp_path: Path) -> Iterator[Site]:
    through = make_url(empty_postgres_url).set(host="127.0.0.1", port=way.port)
    with contextlib.closing(Site(empty_postgres_url, tmp_path)) as site:
        upgrade(site.database)
        site.url = through.render_as_string(hide_password=False)
        yield site


def knows(member: Member) -> Member:
    """The node, as soon as its own copy has the license and it leads."""

    def does() -> bool:
        node = member.ready().stats()["node"]
        return node["snapshot"] is not None and node["snapshot"]["licenses"] == 1 and node["role"] == "primary"

    until(does, "a copy of the license on a node that leads")
    return member


def queued(member: Member, sold: Sold) -> str:
    """Asks the node, whose ledger is away, once; gives the id of the event in its queue."""

    def asked() -> Json:
        answer: Json = member.validate(sold).json()
        return answer if answer.get("durability") == "queue" else {}

    until(asked, "an answer from the queue")
    [one, *_] = EventQueue(member.folder / "sync_queue.db").pending(1)
    return one.event.event_id


def pending(member: Member) -> int:
    return EventQueue(member.folder / "sync_queue.db").stats().pending


def is_in_the_ledger(site: Site, event_id: str) -> bool:
    return bool(rows(site.database, tables.events, event_id=event_id))


class Slow:
    """A call whose last byte is sent when the test wants it to be."""

    def __init__(self, member: Member, sold: Sold) -> None:
        path, body = "/v1/validate", json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex}).encode()
        self._connection = http.client.HTTPConnection("127.0.0.1", member.server.port, timeout=30)
        self._connection.putrequest("POST", path)
        for name, value in {**member.headers(path, body), "Content-Length": str(len(body))}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(body[:-1])
        self._last = body[-1:]

    def end(self) -> Json:
        self._connection.send(self._last)
        response = self._connection.getresponse()
        told: Json = json.loads(response.read())
        assert response.status == 200, told
        return told


def ends(member: Member) -> None:
    """SIGTERM; gives back as soon as the lease is resigned, with calls still in flight."""
    member.server.signal(signal.SIGTERM)
    until(lambda: "the lease is resigned" in member.server.output(), "it has resigned")


def test_what_is_queued_while_a_node_drains_is_in_the_ledger_when_it_has_ended(site: Site, way: Link) -> None:
    sold = site.sell()
    member = knows(site.node(1))
    call = Slow(member, sold)
    ends(member)
    way.refuse()
    assert call.end()["durability"] == "queue"
    [one] = EventQueue(member.folder / "sync_queue.db").pending(10)
    way.heal()
    assert member.server.wait() == 0
    assert pending(member) == 0
    assert is_in_the_ledger(site, one.event.event_id)


def test_a_node_that_ends_while_its_ledger_is_away_waits_a_while_for_it(site: Site, way: Link) -> None:
    sold = site.sell()
    member = knows(site.node(1))
    way.refuse()
    event_id = queued(member, sold)
    member.server.signal(signal.SIGTERM)
    until(lambda: "STOPPING" in member.server.output(), "it ends")
    way.heal()
    assert member.server.wait() == 0
    assert pending(member) == 0
    assert is_in_the_ledger(site, event_id)


def test_one_whose_ledger_stays_away_ends_all_the_same_and_its_next_start_delivers(site: Site, way: Link) -> None:
    sold = site.sell()
    member = knows(site.node(1))
    way.refuse()
    event_id = queued(member, sold)
    assert member.server.stop(60) == 0
    assert pending(member) == 1
    way.heal()
    site.node(1).ready()
    until(lambda: is_in_the_ledger(site, event_id), "the event is in the ledger")
    until(lambda: pending(member) == 0, "the queue is empty")


def test_of_two_copies_on_one_disk_the_one_that_stays_delivers_what_the_other_queued(site: Site, way: Link) -> None:
    sold = site.sell()
    old = knows(site.node(1))
    new = site.node(1).ready()
    way.refuse()
    event_id = queued(old, sold)
    old.server.kill_tree()
    way.heal()
    until(lambda: is_in_the_ledger(site, event_id), "the event is in the ledger", 60)
    until(lambda: pending(new) == 0, "the queue is empty")


def test_where_every_process_gets_the_signal_calls_are_answered_and_the_lease_is_resigned(site: Site) -> None:
    sold = site.sell()
    member = knows(site.node(1))
    calls = [Slow(member, sold) for _ in range(8)]
    member.server.signal_all()
    until(lambda: "the lease is resigned" in member.server.output(), "it has resigned")
    assert {call.end()["code"] for call in calls} == {"VALID"}
    assert member.server.wait() == 0
    [lease] = rows(site.database, tables.lease)
    assert lease["expires_at"] <= time.time()
