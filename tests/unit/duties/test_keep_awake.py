"""The leader calls every node's `/livez` now and then, keeps what it finds, and never waits for it."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert

from api.ledger import tables
from api.ledger.database import Database
from api.node.clock import Clock
from api.stats.nodes import nodes
from api.stats.presence import Asked, Presence, mark_name, presence
from api.supervisor.duties.keep_awake import KeepAwake, addresses
from api.supervisor.duties.terms import Writing
from failover.model import Identity

ONE, TWO, THREE = "https://one.example", "https://two.example", "https://three.example"
START = 1_800_000_000.0


class Site:
    """A ledger with heartbeats, a monotonic clock, and what is at each address; calls run when the test lets them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        engine = create_engine(f"sqlite:///{self.path}")
        tables.metadata.create_all(engine, tables=[tables.heartbeats, tables.duty_marks])
        engine.dispose()
        self.database = Database(f"sqlite:///{self.path}")
        self.at = 0.0
        self.asked: list[tuple[float, str]] = []
        self.under_way: list[Callable[[], None]] = []
        self.there: dict[str, Presence] = {}

    def beat(self, node: str, url: str | None, state: str = "STANDBY", at: float = START) -> None:
        row = {"instance": node, "node": node, "rank": 2, "role": "standby", "state": state, "url": url}
        with self.database.writing() as connection:
            moments = {"version": "1", "started_at": at, "beat_at": at}
            connection.execute(insert(tables.heartbeats), row | moments)

    def duty(self, *peers: str, seed: int = 1) -> KeepAwake:
        return KeepAwake(
            peers,
            ask=self._ask,
            start=self.under_way.append,
            monotonic=lambda: self.at,
            between=random.Random(seed).uniform,
        )

    def look(self, duty: KeepAwake) -> None:
        with self.database.writing() as connection:
            now = START + self.at
            assert not duty.do(Writing(connection, Identity.new("me", 1), 1, Clock(), now, self.at))

    def minutes(self, duty: KeepAwake, count: int) -> None:
        """A look a minute, as the leader does; each call ends before the next look."""
        for _ in range(count):
            self.look(duty)
            while self.under_way:
                self.under_way.pop()()
            self.at += 60.0

    def _ask(self, url: str) -> Presence:
        self.asked.append((self.at, url))
        return self.there.get(url, Presence.ISOLATED)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with contextlib.closing(made.database):
        yield made


@pytest.mark.parametrize("seed", range(3))
def test_each_address_is_called_about_every_ten_minutes_and_never_after_a_quarter_of_an_hour(
    site: Site, seed: int
) -> None:
    site.beat("n1", ONE)
    site.minutes(site.duty(TWO, seed=seed), 120)
    for url in (ONE, TWO):
        moments = [at for at, asked in site.asked if asked == url]
        assert moments[0] <= 120.0
        pauses = {after - before for before, after in itertools.pairwise(moments)}
        assert pauses <= {540.0, 600.0, 660.0, 720.0}
        assert len(pauses) > 1, "it is jittered"


def test_all_nodes_are_called_the_leader_itself_too_and_each_once(site: Site) -> None:
    site.beat("me", ONE)
    site.beat("n2", TWO)
    site.beat("n3", None)
    with site.database.reading() as connection:
        assert addresses(connection, ["https://TWO.example", THREE]) == [ONE, THREE, "https://TWO.example"]


@pytest.mark.parametrize("url", ["ftp://x", "https://u:p@x", "https://x/\r\nHost: y", "https://é.example", "x", ""])
def test_what_is_no_address_is_not_called_whoever_wrote_it_there(site: Site, url: str) -> None:
    site.beat("n1", url)
    with site.database.reading() as connection:
        assert addresses(connection, []) == []


def test_many_rows_do_not_make_it_call_the_whole_world(site: Site) -> None:
    for number in range(80):
        site.beat(f"n{number}", f"https://{number}.example")
    with site.database.reading() as connection:
        assert len(addresses(connection, [])) == 32


def test_an_address_that_takes_its_time_is_not_called_twice_at_once(site: Site) -> None:
    duty = site.duty(ONE)
    for _ in range(60):
        site.look(duty)
        site.at += 60.0
    assert len(site.under_way) == 1
    site.under_way.pop()()
    for _ in range(15):
        site.look(duty)
        site.at += 60.0
    assert len(site.under_way) == 1, "and is called again when it has answered"


def test_what_is_found_of_a_node_that_beats_no_more_is_told(site: Site) -> None:
    urls = {f"n{number}": f"https://n{number}.example" for number in range(5)}
    for node, state in zip(urls, ("STANDBY", "STOPPING", "STANDBY", "STANDBY", "STANDBY"), strict=True):
        site.beat(node, urls[node], state)
    told = {row["id"]: row["presence"] for row in nodes(site.database, START + 20)}
    assert told == {"n1": "asleep"} | dict.fromkeys(("n0", "n2", "n3", "n4"), "silent")
    site.there = {urls["n2"]: Presence.DEAD, urls["n3"]: Presence.UNREACHABLE}
    site.minutes(site.duty(), 5)
    site.beat("n5", "https://n5.example", at=START + 299)
    told = {row["id"]: row["presence"] for row in nodes(site.database, START + 300)}
    found = {"n0": "isolated", "n1": "isolated", "n2": "dead", "n3": "unreachable", "n4": "isolated", "n5": "beating"}
    assert told == found


def test_a_beat_after_the_call_says_more_than_the_call() -> None:
    dead = Asked(100, Presence.DEAD)
    assert presence(2.0, 150.0, False, dead, 6.0) is Presence.BEATING
    assert presence(50.0, 150.0, False, dead, 6.0) is Presence.SILENT
    assert presence(50.0, 150.0, True, dead, 6.0) is Presence.ASLEEP
    assert presence(50.0, 90.0, True, dead, 6.0) is Presence.DEAD
    assert presence(50.0, 150.0, False, None, 180.0) is Presence.BEATING, "a slow beat is a beat"


@pytest.mark.parametrize("found", [Presence.ISOLATED, Presence.UNREACHABLE, Presence.DEAD])
def test_a_mark_gives_again_what_was_found(found: Presence) -> None:
    assert Asked.from_mark(Asked(1_800_000_000, found).mark()) == Asked(1_800_000_000, found)
    assert Asked.from_mark(1_800_000_0009).found is Presence.SILENT
    assert mark_name("https://One.example/") == mark_name(ONE)
    assert len(mark_name(ONE)) <= 40
