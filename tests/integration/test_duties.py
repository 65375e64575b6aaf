"""The fence around the leader's duties, and the culls behind it: who lost the lease commits nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerUnavailable
from api.licensing import ALWAYS
from api.supervisor.duties import Writing, counting_since, watched
from api.supervisor.duties.culls import cull
from api.supervisor.duties.pace import Pace
from api.supervisor.duties.rows import put
from api.supervisor.duties.watching import Limits, keep_watch
from failover import Identity, supervise
from failover.errors import NotLeading, StoreBusy, StoreUnavailable
from tests.support.leading import Leading, add_machine, beat, leader_and_standby
from tests.support.nodes import Sold, change_license, change_machine, license_row, rows, sell
from tests.support.processes import until

HEARTBEAT_S, SILENT_S = 60, 61.0
RULES = {"machine_heartbeat_s": HEARTBEAT_S}
KEEP_WATCH = partial(keep_watch, limits=Limits(timeout=6.0, isolated_max_age=7 * 86_400.0), pace=Pace())


@pytest.fixture
def leader(ledger_url: str) -> Iterator[Leading]:
    with contextlib.closing(Leading(ledger_url)) as leader:
        yield leader


def dead_machine(database: Database) -> Sold:
    """A license whose one machine has been silent for too long."""
    sold = sell(database, RULES)
    add_machine(database, sold, "dead", heartbeat_at=time.time() - SILENT_S)
    return sold


def machine(database: Database, sold: Sold, fingerprint: str) -> dict[str, Any]:
    return rows(database, tables.machines, license_id=sold.id, fingerprint=fingerprint)[0]


def is_untouched(database: Database, sold: Sold) -> bool:
    assert rows(database, tables.events) == rows(database, tables.outbox) == []
    assert rows(database, tables.log_head)[0]["seq"] == 0
    return bool(machine(database, sold, "dead")["active"] and license_row(database, sold)["seats"] == 1)


def test_a_cull_frees_the_seats_that_it_takes_and_none_that_is_hidden(leader: Leading) -> None:
    sold, database = dead_machine(leader.database), leader.database
    for fingerprint in ("alive", "tolerated", "deleted"):
        add_machine(database, sold, fingerprint, heartbeat_at=time.time())
    change_license(database, sold, excess=2)
    change_machine(database, sold, "dead", excess=True)
    change_machine(database, sold, "tolerated", excess=True)
    with database.writing() as connection:
        connection.execute(delete(tables.machines).where(tables.machines.c.fingerprint == "deleted"))
    leader.do(cull)
    assert not machine(database, sold, "dead")["active"]
    assert (license_row(database, sold)["seats"], license_row(database, sold)["excess"]) == (3, 1)


# -- the fence --------------------------------------------------------------------------------------------------------


def test_who_lost_the_lease_commits_nothing(leader: Leading, ledger_url: str) -> None:
    sold = dead_machine(leader.database)
    leader.end_the_lease()
    with pytest.raises(NotLeading):
        leader.do(cull)
    with contextlib.closing(Leading(ledger_url, rank=2)) as other:
        with pytest.raises(NotLeading):
            leader.do(cull)
        assert is_untouched(leader.database, sold)
        other.do(cull)
    (event,) = rows(leader.database, tables.events)
    assert (event["node"], event["epoch"], event["mode"]) == ("node-2", 2, "backup")


def test_who_does_not_lead_does_not_even_ask(ledger_url: str) -> None:
    with contextlib.closing(Leading(ledger_url, takes_it=False)) as nobody:
        assert not nobody.term.leads
        with pytest.raises(NotLeading):
            nobody.do(cull)


def test_a_duty_that_fails_leaves_nothing_behind(leader: Leading) -> None:
    sold = dead_machine(leader.database)

    def fail(writing: Writing) -> bool:
        cull(writing)
        raise LookupError

    with pytest.raises(LookupError):
        leader.do(fail)
    assert is_untouched(leader.database, sold)


def test_a_leader_frozen_in_mid_transaction_is_freed_and_cannot_commit(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leader_and_standby(postgres_url) as (one, two):
        # A frozen process has no watchdog that could end its own transaction.
        monkeypatch.setattr(one.database, "guarded", lambda *_: contextlib.nullcontext())
        sold = dead_machine(one.database)

        def freeze(writing: Writing) -> bool:
            cull(writing)
            two.end_the_lease()
            until(lambda: taken(two), "the other takes the lease")
            return False

        with pytest.raises(LedgerUnavailable):
            one.do(freeze)
        assert two.epoch == 2
        assert is_untouched(two.database, sold)
        two.do(cull)
        assert [event["epoch"] for event in rows(two.database, tables.events)] == [2]


def taken(process: Leading) -> bool:
    """Whether it has the lease now; one that is held by an open transaction is tried for again."""
    with contextlib.suppress(StoreBusy, StoreUnavailable):
        return process.take_the_lease()
    return False


def test_on_sqlite_the_lease_changes_hands_after_the_open_transaction_or_before_it(sqlite_url: str) -> None:
    with leader_and_standby(sqlite_url) as (one, two):
        dead_machine(one.database)
        begun, committed = threading.Event(), threading.Event()

        def take() -> bool:
            begun.wait()
            until(lambda: taken(two), "the other takes the lease", 60)
            return committed.is_set()

        def go_on(writing: Writing) -> bool:
            cull(writing)
            # Over at the commit: nobody could have ended it from outside, for the file is this transaction's alone.
            writing.connection.execute(text("UPDATE lease SET expires_at = 0"))
            begun.set()
            time.sleep(0.3)
            committed.set()
            return False

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(take)
            one.do(go_on)
            assert waiting.result(90) is True
        with pytest.raises(NotLeading):
            one.do(cull)
        assert [event["epoch"] for event in rows(one.database, tables.events)] == [1]


# -- culls ------------------------------------------------------------------------------------------------------------


def test_a_silent_machine_loses_its_seat_and_followers_are_told(leader: Leading) -> None:
    database, now = leader.database, time.time()
    sold = sell(database, RULES)
    ids = [
        add_machine(database, sold, "silent", heartbeat_at=now - SILENT_S),
        add_machine(database, sold, "in excess", heartbeat_at=now - 1e6, excess=True),
    ]
    add_machine(database, sold, "beating", heartbeat_at=now)
    change_license(database, sold, excess=1)
    assert leader.do(cull) is False
    events = rows(database, tables.events)
    assert [event["seq"] for event in events] == [1, 2]
    assert {(event["type"], event["license_id"], event["machine_id"]) for event in events} == {
        ("machine.culled", sold.id, id) for id in ids
    }
    assert {(event["node"], event["instance"], event["epoch"], event["mode"]) for event in events} == {
        ("node-1", leader.me.instance, 1, "normal")
    }
    for fingerprint in ("silent", "in excess"):
        culled = machine(database, sold, fingerprint)
        assert (culled["active"], culled["excess"], culled["culled"]) == (False, False, True)
        assert (culled["heartbeat_at"], culled["seq"]) == (None, 2)
        assert culled["seat_at"] == events[0]["occurred_at"] == pytest.approx(time.time(), abs=60)
    license = license_row(database, sold)
    assert (license["seats"], license["excess"], license["seq"]) == (1, 0, 2)
    assert machine(database, sold, "beating")["seq"] == 0
    entries = rows(database, tables.outbox)
    assert {(entry["id"], entry["kind"]) for entry in entries} == {(e["event_id"], "machine.culled") for e in events}


def test_nobody_else_loses_a_seat(leader: Leading) -> None:
    database, long_ago = leader.database, time.time() - SILENT_S
    beating, kept, without = sell(database, RULES), sell(database, RULES | {"cull": "keep"}), sell(database)
    add_machine(database, beating, "in time", heartbeat_at=time.time() - HEARTBEAT_S + 30)
    add_machine(database, beating, "never began", last_seen_at=0.0)
    add_machine(database, beating, "gone", heartbeat_at=long_ago, active=False)
    add_machine(database, kept, "silent", heartbeat_at=long_ago)
    add_machine(database, without, "silent", heartbeat_at=long_ago)
    before = rows(database, tables.machines)
    assert leader.do(cull) is False
    assert rows(database, tables.machines) == before
    assert rows(database, tables.events) == []


@pytest.mark.parametrize(
    ("since", "until", "is_culled"),
    [(None, 0, True), (-HEARTBEAT_S - 30, 0, True), (-HEARTBEAT_S + 30, 0, False), (None, -300, False)],
)
def test_only_silence_in_the_span_that_was_watched_counts(
    leader: Leading, since: float | None, until: float, is_culled: bool
) -> None:
    now = time.time()
    sold = sell(leader.database, RULES)
    add_machine(leader.database, sold, "m", heartbeat_at=now - 300)
    with leader.database.writing() as connection:
        look = {"id": 1, "since": None if since is None else now + since, "until": now + until, "looked_at": now}
        put(connection, tables.watch, [look])
    leader.do(cull)
    assert machine(leader.database, sold, "m")["culled"] is is_culled


def test_many_are_culled_in_chunks(leader: Leading) -> None:
    sold = [sell(leader.database, RULES) for _ in range(5)]
    for license in sold:
        for number in range(41):
            add_machine(leader.database, license, f"m{number}", heartbeat_at=1.0)
    assert leader.do_all(cull) == 3
    assert {license_row(leader.database, license)["seats"] for license in sold} == {0}
    assert [event["seq"] for event in rows(leader.database, tables.events)] == list(range(1, 206))


def test_a_license_that_a_call_holds_is_left_for_the_next_time(postgres_url: str) -> None:
    with contextlib.closing(Leading(postgres_url)) as leader, contextlib.closing(Database(postgres_url)) as caller:
        held, free = dead_machine(leader.database), dead_machine(leader.database)
        with caller.writing() as call:
            call.execute(select(tables.licenses.c.id).where(tables.licenses.c.id == held.id).with_for_update())
            leader.do(cull)
            assert machine(leader.database, held, "dead")["active"]
            assert not machine(leader.database, free, "dead")["active"]
            its = tables.machines.c.license_id == held.id
            call.execute(update(tables.machines).where(its).values(heartbeat_at=time.time()))
        leader.do(cull)
        assert machine(leader.database, held, "dead")["active"], "it has beaten meanwhile"


# -- the watch --------------------------------------------------------------------------------------------------------


def test_the_leader_keeps_when_there_was_trouble_last(leader: Leading) -> None:
    database = leader.database
    with database.reading() as connection:
        assert (counting_since(connection), watched(connection)) == (None, ALWAYS)
    beat(database)
    leader.do(KEEP_WATCH)
    with database.reading() as connection:
        assert counting_since(connection) is None
        calm = watched(connection)
    assert calm.until == float("inf")

    beat(database, "node-2", age=60)
    leader.do(KEEP_WATCH)
    with database.reading() as connection:
        first = counting_since(connection)
    assert first == pytest.approx(time.time(), abs=60)
    leader.do(KEEP_WATCH)
    with database.reading() as connection:
        second = counting_since(connection)
    assert first is not None
    assert second is not None
    assert second > first

    beat(database, "node-2")
    beat(database)
    leader.do(KEEP_WATCH)
    with database.reading() as connection:
        assert counting_since(connection) == second
        assert watched(connection).since == second


def test_a_node_that_may_hold_pings_keeps_the_silent_in_their_seats(leader: Leading) -> None:
    sold = dead_machine(leader.database)
    beat(leader.database)
    beat(leader.database, "node-2", age=60)
    leader.do(KEEP_WATCH)
    leader.do(cull)
    assert is_untouched(leader.database, sold)
    change_machine(leader.database, sold, "dead", heartbeat_at=time.time())
    beat(leader.database, "node-2")
    leader.do(KEEP_WATCH)
    leader.do(cull)
    assert is_untouched(leader.database, sold)


def test_a_supervisor_that_is_stopped_signs_off_and_nobody_waits_for_it(leader: Leading, ledger_url: str) -> None:
    supervisor = supervise(ledger_url, Identity.new("node-2", 2))
    supervisor.start()
    try:
        until(lambda: rows(leader.database, tables.heartbeats), "its first beat")
    finally:
        assert supervisor.stop(30)
    (last,) = rows(leader.database, tables.heartbeats)
    assert (last["node"], last["state"], last["queue"]) == ("node-2", "STOPPING", 0)
    with leader.database.writing() as connection:
        connection.execute(update(tables.heartbeats).values(beat_at=time.time() - 60))
    beat(leader.database)
    leader.do(KEEP_WATCH)
    with leader.database.reading() as connection:
        assert counting_since(connection) is None
