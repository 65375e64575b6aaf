"""Roll-ups and retention: the tables stay small, what `/stats` says stays right, and no reader misses a row."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, text

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerBusy
from api.ledger.records import Batch, Tally
from api.ledger.store import ledger_on
from api.node.clock import Clock
from api.stats.counts import count, settle
from api.supervisor.duties import Entry, Writing, retention, rollup
from api.supervisor.duties.notices import record_expiries
from api.supervisor.duties.outbox import enqueue
from api.supervisor.duties.retention import RetentionPeriods
from api.supervisor.duties.rollup import roll_up, rolled_up_until
from tests.support.leading import Json, Leading, add_events, beat
from tests.support.nodes import rows, sell

DAY = 86_400.0
KEEP = RetentionPeriods(checks=7 * DAY, events=90 * DAY, timeout=6.0, gone=2 * DAY)
FORGET_CHECKS = partial(retention.forget_checks, keep=KEEP)
FORGET_EVENTS = partial(retention.forget_events, keep=KEEP)
TIDY = partial(retention.tidy, keep=KEEP)


@pytest.fixture
def leader(ledger_url: str) -> Iterator[Leading]:
    with contextlib.closing(Leading(ledger_url)) as leader:
        yield leader


def counted(database: Database, now: float) -> Any:
    with database.reading() as connection:
        return count(connection, now, settle(connection, now))


def add_minutes(database: Database, *given: tuple[int, str, str, int]) -> None:
    """Counted checks: minute, code, writer, count. `VALID` is valid."""
    ledger = [
        {"minute": minute, "code": code, "valid": code == "VALID", "writer": writer, "count": count}
        for minute, code, writer, count in given
    ]
    with database.writing() as connection:
        connection.execute(insert(tables.check_minutes).values(ledger))


def minutes(database: Database) -> set[tuple[int, str, str, int]]:
    return {(row["minute"], row["code"], row["writer"], row["count"]) for row in rows(database, tables.check_minutes)}


# -- roll-ups ---------------------------------------------------------------------------------------------------------


def test_old_minutes_become_hours_and_old_hours_days_and_every_number_stays(leader: Leading, seed: int) -> None:
    database, chance, now = leader.database, random.Random(seed), time.time()
    minute = int(now // 60)
    given = {
        (minute - age, code, f"process-{chance.randrange(3)}"): chance.randrange(1, 100)
        for age in [*range(70), *chance.sample(range(70, 40 * 1440), 300)]
        for code in chance.sample(["VALID", "EXPIRED", "BANNED"], 2)
    }
    add_minutes(database, *((*key, number) for key, number in given.items()))
    before = counted(database, now).checks
    assert before["total"] == sum(given.values())
    leader.do_all(roll_up, now)
    assert counted(database, now).checks == before
    rolled = minutes(database)
    assert leader.do_all(roll_up, now) == 1
    assert minutes(database) == rolled
    for at, _code, writer, _count in rolled:
        width = 1440 if at < minute - 9 * 1440 else 60 if at < minute - 4 * 60 else 1
        assert at % width == 0
        assert (writer == "") is (width > 1 or at < rollup.HOURS.until(now))
    with database.reading() as connection:
        until = rolled_up_until(connection, now)
    assert until == 60 * rollup.HOURS.until(now)


def test_a_check_that_is_counted_late_is_added_to_its_hour(leader: Leading) -> None:
    now = time.time()
    hour = rollup.HOURS.until(now) - 60
    add_minutes(leader.database, (hour + 5, "VALID", "a", 3), (hour + 6, "VALID", "b", 4))
    leader.do_all(roll_up)
    assert minutes(leader.database) == {(hour, "VALID", "", 7)}
    add_minutes(leader.database, (hour, "VALID", "a", 1), (hour + 59, "VALID", "b", 2), (hour, "BANNED", "b", 5))
    with leader.database.reading() as connection:
        assert rolled_up_until(connection, now) == 60 * hour
    leader.do_all(roll_up)
    assert minutes(leader.database) == {(hour, "VALID", "", 10), (hour, "BANNED", "", 5)}


def test_nothing_that_is_counted_while_an_hour_is_rolled_up_is_lost(ledger_url: str, leader: Leading) -> None:
    """A process that counts into the same rows all the time, as one does that replays old checks."""
    hour, codes, rounds = rollup.HOURS.until(time.time()) - 60, ("VALID", "EXPIRED"), 150
    with contextlib.closing(Database(ledger_url)) as database, ThreadPoolExecutor(1) as pool:
        writer = ledger_on(database, "late", Clock())

        def add() -> None:
            for number in range(rounds):
                tallies = [Tally(hour + number % 3, code, code == "VALID", 1) for code in sorted(codes)]
                writer.append(Batch([], [], tallies, []))

        adding = pool.submit(add)
        while not adding.done():
            with contextlib.suppress(LedgerBusy):  # a duty that meets the writer's locks waits for its next turn
                leader.do(roll_up)
        adding.result()
    leader.do_all(roll_up)
    assert minutes(leader.database) == {(hour, code, "", rounds) for code in codes}


# -- retention --------------------------------------------------------------------------------------------------------


def log_of(database: Database, *given: tuple[str, float], **columns: Any) -> None:
    """Events of a type that were recorded so many days ago."""
    now = time.time()
    add_events(database, *({"type": type, "recorded_at": now - days * DAY, **columns} for type, days in given))


def left(database: Database) -> list[int]:
    return [row["seq"] for row in rows(database, tables.events)]


def test_old_validations_go_and_all_else_stays_until_it_is_older_still(leader: Leading) -> None:
    log_of(leader.database, ("activate", 91), ("validate", 91), ("usage", 80), ("validate", 8), ("ping", 8))
    log_of(leader.database, ("validate", 6.9), ("validate", 0))
    beat(leader.database, applied_seq=7)
    assert leader.do(FORGET_CHECKS) is False
    assert left(leader.database) == [1, 3, 5, 6, 7]
    assert leader.do(FORGET_EVENTS) is False
    assert left(leader.database) == [3, 5, 6, 7]


@pytest.mark.parametrize("forget", [FORGET_CHECKS, FORGET_EVENTS])
def test_the_last_row_and_what_somebody_still_has_to_read_stays(leader: Leading, forget: Any) -> None:
    database = leader.database
    log_of(database, *[("validate", 100.0)] * 10)
    beats: tuple[tuple[Json, list[int]], ...] = (
        ({"node": "node-1", "applied_seq": 4}, [4, 5, 6, 7, 8, 9, 10]),
        ({"node": "node-2", "applied_seq": 5}, [4, 5, 6, 7, 8, 9, 10]),
        ({"node": "node-1", "applied_seq": 8}, [5, 6, 7, 8, 9, 10]),
        ({"node": "node-2", "applied_seq": 5, "age": 60}, [8, 9, 10]),
        ({"node": "node-2", "applied_seq": 10}, [8, 9, 10]),
        ({"node": "node-1", "applied_seq": 9, "age": 3600}, [9, 10]),
        ({"node": "node-1", "applied_seq": 10}, [10]),
    )
    for said, expected in beats:
        beat(database, **said)
        leader.do(forget)
        assert left(database) == expected, said


def test_a_rank_1_that_is_gone_for_good_does_not_keep_the_log_and_that_is_said_once(
    leader: Leading, caplog: pytest.LogCaptureFixture
) -> None:
    log_of(leader.database, ("validate", 100), ("ping", 100), ("ping", 100))
    beat(leader.database, "node-1", applied_seq=1, age=DAY)
    beat(leader.database, "node-2", rank=2, applied_seq=3)
    leader.do(FORGET_EVENTS)
    assert left(leader.database) == [1, 2, 3]
    beat(leader.database, "node-1", applied_seq=1, age=3 * DAY)
    for _ in range(2):
        leader.do(FORGET_CHECKS)
        leader.do(FORGET_EVENTS)
    assert left(leader.database) == [3]
    assert [record.levelname for record in caplog.records if "waits for it" in record.message] == ["WARNING"]


def test_nothing_goes_while_nobody_beats(leader: Leading) -> None:
    log_of(leader.database, ("validate", 100), ("ping", 100))
    leader.do(FORGET_CHECKS)
    leader.do(FORGET_EVENTS)
    assert left(leader.database) == [1, 2]


def test_validations_stay_until_the_minutes_that_count_them_are_rolled_up(leader: Leading) -> None:
    database, minute = leader.database, int((time.time() - 8 * DAY) // 60)
    add_minutes(database, (minute, "VALID", "a", 2))
    log_of(database, ("validate", 9), ("validate", 7.9), ("ping", 0))
    beat(database, applied_seq=3)
    leader.do(FORGET_CHECKS)
    assert left(database) == [2, 3]
    leader.do_all(roll_up)
    leader.do(FORGET_CHECKS)
    assert left(database) == [3]


def test_rows_go_from_the_beginning_whatever_a_clock_said_in_between(leader: Leading) -> None:
    log_of(leader.database, ("ping", 100), ("ping", 1), ("ping", 100), ("ping", 0))
    beat(leader.database, applied_seq=4)
    leader.do(FORGET_EVENTS)
    assert left(leader.database) == [2, 3, 4]


def test_a_long_log_goes_in_chunks(leader: Leading) -> None:
    log_of(leader.database, *[("validate", 10.0), ("ping", 10.0)] * 2_500, ("ping", 0.0))
    beat(leader.database, applied_seq=5_001)
    assert leader.do_all(FORGET_CHECKS) == 3
    assert left(leader.database) == [*range(2, 5_001, 2), 5_001]
    with leader.database.writing() as connection:
        connection.execute(text("UPDATE events SET recorded_at = 0 WHERE seq < 5001"))
    assert leader.do_all(FORGET_EVENTS) == 2
    assert left(leader.database) == [5_001]


def test_stats_say_after_retention_what_they_said_before(leader: Leading) -> None:
    database, now = leader.database, time.time()
    add_minutes(database, (int(now // 60) - 9 * 1440, "VALID", "a", 4), (int(now // 60), "VALID", "a", 1))
    log_of(database, ("ping", 100), ("validate", 9), ("validate", 9), mode="backup")
    log_of(database, ("validate", 9), mode="isolated")
    log_of(database, ("validate", 9), ("validate", 0))
    log_of(database, ("ping", 0), mode="backup")
    with database.writing() as connection:
        hands = {"epoch": 2, "at": 1.0, "from_node": "a", "to_node": "b", "kind": "takeover", "gap_s": 6.0}
        connection.execute(insert(tables.failovers), hands)
    beat(database, applied_seq=6)
    before = counted(database, now)
    assert (before.sync["total"], before.sync["pending"], before.sync["synced"]) == (5, 1, 4)
    for duty in (roll_up, FORGET_CHECKS, FORGET_EVENTS, TIDY):
        leader.do_all(duty)
    assert left(database) == [6, 7]
    after = counted(database, now)
    assert (after.checks, after.sync, after.failovers, after.seq) == (
        before.checks,
        before.sync,
        before.failovers,
        before.seq,
    )


# -- what the duties themselves leave ---------------------------------------------------------------------------------


def test_old_entries_of_the_outbox_go_and_its_numbers_go_on(leader: Leading) -> None:
    def put_in(writing: Writing, id: str) -> bool:
        enqueue(writing, [Entry(id=id, kind="k", license_id=None, data={})])
        return False

    for id in ("a", "b", "c"):
        leader.do(partial(put_in, id=id))
    with leader.database.writing() as connection:
        connection.execute(text("UPDATE outbox SET created_at = 0"))
    assert leader.do(TIDY) is False
    leader.do(partial(put_in, id="d"))
    assert [(row["number"], row["id"]) for row in rows(leader.database, tables.outbox)] == [(3, "c"), (4, "d")]


def test_answers_to_admins_are_kept_for_a_day_and_not_much_longer(leader: Leading) -> None:
    now, ages = time.time(), (0.0, 0.99 * DAY, DAY + 60, DAY + 3700, 30 * DAY)
    with leader.database.writing() as connection:
        for age in ages:
            row = {"id": f"after {age}", "request_hash": "", "answer_json": "{}", "salt": "", "created_at": now - age}
            connection.execute(insert(tables.idempotency_records), row)
    assert leader.do(retention.forget_answers, now) is False
    assert {row["id"] for row in rows(leader.database, tables.idempotency_records)} == {
        f"after {age}" for age in ages[:3]
    }


def test_notices_of_deleted_licenses_go(leader: Leading) -> None:
    gone, kept = (sell(leader.database, expires_at=1.0) for _ in range(2))
    leader.do(record_expiries)
    with leader.database.writing() as connection:
        connection.execute(tables.licenses.delete().where(tables.licenses.c.id == gone.id))
    leader.do(TIDY)
    assert [row["license_id"] for row in rows(leader.database, tables.notices)] == [kept.id]
