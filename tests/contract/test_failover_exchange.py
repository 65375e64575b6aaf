"""A beat in one message says and tells the same as a write and two reads, and no more than what has changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from failover.database import Database
from failover.exchange import BeatAnswer, SqlExchange
from failover.heartbeat import Beat, Report, SqlHeartbeatStore
from failover.lease import SqlLeaseStore
from failover.model import Identity, Kind, Lease
from failover.sql import CHANNEL
from failover.wakeup import Wakeup

ONE, TWO, THREE = (Identity.new(f"n{rank}", rank) for rank in (1, 2, 3))
REPORT = Report(role="standby", state="STANDBY", url="https://one.example", version="1", applied_seq=7)


class Place:
    """One database, and the two ways of asking it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.beats, self.leases = SqlHeartbeatStore(self.database), SqlLeaseStore(self.database)

    def run(self, sql: str, **values: Any) -> None:
        with self.database.writing() as connection:
            connection.execute(text(sql), values)

    def agrees(self, heard: BeatAnswer) -> bool:
        """Whether what came with a beat is what the tables have now."""
        lease = self.leases.watch()
        return _plain(heard.beats) == _plain(self.beats.read()) and _ended(heard.lease) == _ended(lease)


def _plain(beats: Any) -> list[Beat]:
    """Without ages, which go on between two looks."""
    still = [replace(beat, age_s=0.0, report=replace(beat.report, queue_oldest_s=None)) for beat in beats]
    return sorted(still, key=lambda beat: beat.identity.instance)


def _ended(lease: Lease | None) -> Lease | None:
    return None if lease is None else replace(lease, expires_in=0.0)


@pytest.fixture
def place(postgres_url: str) -> Iterator[Place]:
    place = Place(postgres_url)
    yield place
    place.database.close()


def test_every_beat_tells_what_the_tables_have(place: Place) -> None:
    exchange = SqlExchange(place.database)
    first = exchange.beat(ONE, REPORT)
    assert place.agrees(first)
    assert (first.lease, [beat.identity for beat in first.beats]) == (None, [ONE])
    place.beats.write(TWO, replace(REPORT, queue=3, queue_oldest_s=5.0))
    assert place.leases.acquire(TWO, 6.0) == 1
    for changed in (
        lambda: None,
        lambda: place.beats.write(TWO, REPORT),
        lambda: place.leases.renew(TWO, 1, 6.0),
        lambda: place.beats.write(THREE, REPORT),
        lambda: place.leases.resign(TWO, 1),
        lambda: place.leases.acquire(ONE, 6.0),
        lambda: place.leases.hand_over(place.leases.watch(), THREE, 6.0, Kind.SWITCHOVER),  # type: ignore[arg-type]
        lambda: place.run("DELETE FROM heartbeats WHERE node = 'n2'"),
        lambda: place.run("DELETE FROM lease"),
    ):
        for _ in range(2):
            changed()
            assert place.agrees(exchange.beat(ONE, replace(REPORT, applied_seq=8)))


def test_an_age_is_by_the_databases_clock(place: Place) -> None:
    exchange = SqlExchange(place.database)
    place.beats.write(TWO, replace(REPORT, queue=1, queue_oldest_s=5.0))
    place.run("UPDATE heartbeats SET beat_at = beat_at - 100, queue_oldest_at = queue_oldest_at - 100")
    for _ in range(3):
        (two,) = (beat for beat in exchange.beat(ONE, REPORT).beats if beat.identity == TWO)
        assert 100 <= two.age_s < 130
        assert 105 <= (two.report.queue_oldest_s or 0.0) < 135


def test_a_table_that_somebody_emptied_is_filled_by_the_same_beat(place: Place) -> None:
    exchange = SqlExchange(place.database)
    for _ in range(2):
        exchange.beat(ONE, REPORT)
        place.run("DELETE FROM heartbeats")
    assert [beat.identity for beat in exchange.beat(ONE, REPORT).beats] == [ONE]
    assert [beat.identity for beat in place.beats.read()] == [ONE]


@pytest.mark.parametrize("moved_s", [-600.0, 600.0])
def test_a_beat_is_told_whichever_way_its_time_has_moved(place: Place, moved_s: float) -> None:
    exchange = SqlExchange(place.database)
    for identity in (TWO, THREE):
        place.beats.write(identity, REPORT)
    place.run("UPDATE heartbeats SET beat_at = beat_at - 3000 WHERE node = 'n3'")
    for _ in range(4):
        assert place.agrees(exchange.beat(ONE, REPORT))
    for node in ("n2", "n3"):
        place.run("UPDATE heartbeats SET beat_at = beat_at + :by WHERE node = :node", by=moved_s, node=node)
        for _ in range(2):
            assert place.agrees(exchange.beat(ONE, REPORT))


def test_an_answer_does_not_grow_with_the_processes_of_former_days(place: Place) -> None:
    exchange = SqlExchange(place.database)
    exchange.beat(ONE, REPORT)
    for number in range(50):
        place.beats.write(Identity.new(f"old-{number}", 2), REPORT)
    place.run("UPDATE heartbeats SET beat_at = beat_at - 3000 WHERE node LIKE 'old-%'")
    for _ in range(3):
        assert len(exchange.beat(ONE, REPORT).beats) == 51
    sent: list[int] = []
    update = exchange._known.update

    def counted(told: list[Any], now: float) -> None:
        sent.append(len(told[1]))
        update(told, now)

    exchange._known.update = counted  # type: ignore[method-assign]
    assert len(exchange.beat(ONE, REPORT).beats) == 51
    assert sent == [1], "one moment of the one process that beats"


def test_who_listens_hears_of_a_resignation_and_of_a_lease_that_is_handed_over(place: Place, postgres_url: str) -> None:
    with contextlib.closing(Database(postgres_url, channel=CHANNEL)) as listening:
        standby, wakeup = SqlLeaseStore(listening), Wakeup(listening.line)
        assert standby.watch() is None
        assert place.leases.acquire(ONE, 6.0) == 1
        assert place.leases.renew(ONE, 1, 6.0)
        assert not wakeup.wait(0.05), "what happens every beat is told to nobody"
        for change in (
            lambda: place.leases.hand_over(place.leases.watch(), TWO, 6.0, Kind.SWITCHOVER),  # type: ignore[arg-type]
            lambda: place.leases.resign(TWO, 2),
        ):
            assert change()
            assert wakeup.wait(60.0)
            assert _ended(standby.watch()) == _ended(place.leases.watch())
            assert not wakeup.wait(0.05), "the look took it in, on the same connection"
        backend = _backend(listening)
        standby.watch()
        assert _backend(listening) == backend


def _backend(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_listening_connection_whose_server_ended_it_is_replaced(place: Place, postgres_url: str) -> None:
    with contextlib.closing(Database(postgres_url, channel=CHANNEL)) as listening:
        store, wakeup = SqlLeaseStore(listening), Wakeup(listening.line)
        store.watch()
        place.run("SELECT pg_terminate_backend(:pid)", pid=_backend(listening))
        assert wakeup.wait(60.0), "an end is news as well"
        assert store.watch() is None
        assert place.leases.acquire(ONE, 6.0) == 1
        assert place.leases.resign(ONE, 1)
        assert wakeup.wait(60.0)
