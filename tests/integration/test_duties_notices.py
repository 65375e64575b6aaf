"""What the leader says of licenses once per occurrence, and the outbox that whoever tells people reads."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert

from api.ledger import tables
from api.node.clock import timestamp
from api.supervisor.duties import Entry, Writing, mark_sent, unsent
from api.supervisor.duties.notices import record_expiries, record_overdue
from api.supervisor.duties.outbox import enqueue, enqueue_cluster_notices
from api.supervisor.duties.rows import put
from tests.support.leading import Leading, leader_and_standby
from tests.support.nodes import Sold, change_license, log_of, rows, sell

DAY = 86_400.0


@pytest.fixture
def leader(ledger_url: str) -> Iterator[Leading]:
    with contextlib.closing(Leading(ledger_url)) as leader:
        yield leader


def said(leader: Leading, sold: Sold) -> list[tuple[str, str]]:
    """What the log says of the license: each event's type, and the moment that it is about."""
    return [(event["type"], *event["data"].values()) for event in log_of(leader.database, sold)]


# -- expiry -----------------------------------------------------------------------------------------------------------


def test_an_expiry_is_said_seven_days_before_and_when_it_comes_once_each(leader: Leading) -> None:
    now = time.time()
    sold = sell(leader.database, created_at=0.0, expires_at=now + 7 * DAY + 60)
    leader.do(record_expiries)
    assert said(leader, sold) == []
    soon, past = now + 6 * DAY, now - 1
    change_license(leader.database, sold, expires_at=soon)
    for _ in range(2):
        leader.do(record_expiries)
    assert said(leader, sold) == [("license.expiring", timestamp(soon))]
    change_license(leader.database, sold, expires_at=past)
    for _ in range(2):
        leader.do(record_expiries)
    assert said(leader, sold) == [("license.expiring", timestamp(soon)), ("license.expired", timestamp(past))]


def test_a_renewed_license_expires_again(leader: Leading) -> None:
    first, second = time.time() - 50 * DAY, time.time() - 10
    sold = sell(leader.database, created_at=0.0, expires_at=first)
    leader.do(record_expiries)
    change_license(leader.database, sold, expires_at=time.time() + 30 * DAY)
    leader.do(record_expiries)
    change_license(leader.database, sold, expires_at=second)
    leader.do(record_expiries)
    assert said(leader, sold) == [("license.expired", timestamp(first)), ("license.expired", timestamp(second))]


@pytest.mark.parametrize(
    "columns",
    [
        {"expires_at": None},
        {"expires_at": -1.0, "status": "suspended"},
        {"expires_at": -1.0, "status": "banned"},
        {"expires_at": 3 * DAY, "created_at": 0.0, "status": "suspended"},
        {"expires_at": 3 * DAY},
    ],
)
def test_nothing_is_said_of_what_does_not_expire_or_is_no_news(leader: Leading, columns: dict[str, Any]) -> None:
    """The last one was sold for three days."""
    at = columns["expires_at"]
    sold = sell(leader.database, **columns | {"expires_at": None if at is None else time.time() + at})
    leader.do(record_expiries)
    assert said(leader, sold) == []


def test_many_that_expired_are_said_in_chunks_each_once(leader: Leading) -> None:
    sold = [sell(leader.database, expires_at=float(number)) for number in range(401)]
    assert leader.do_all(record_expiries) == 3
    events = rows(leader.database, tables.events)
    assert [event["seq"] for event in events] == list(range(1, 402))
    assert {event["license_id"] for event in events} == {license.id for license in sold}
    assert leader.do_all(record_expiries) == 1


# -- check-in ---------------------------------------------------------------------------------------------------------


def test_an_overdue_check_in_is_said_once_for_each_time_it_is_missed(leader: Leading) -> None:
    created, checked_in = time.time() - 40 * DAY, time.time() - 31 * DAY
    sold = sell(leader.database, {"check_in_days": 30}, created_at=created)
    for _ in range(2):
        leader.do(record_overdue)
    change_license(leader.database, sold, checked_in_at=time.time())
    leader.do(record_overdue)
    change_license(leader.database, sold, checked_in_at=checked_in)
    leader.do(record_overdue)
    overdue = [("license.overdue", timestamp(created)), ("license.overdue", timestamp(checked_in))]
    assert said(leader, sold) == overdue


@pytest.mark.parametrize(
    ("rules", "columns", "is_overdue"),
    [
        ({"check_in_days": 30}, {}, True),
        ({}, {}, False),
        ({"check_in_days": 41}, {}, False),
        ({"check_in_days": 30}, {"status": "suspended"}, False),
        ({"check_in_days": 30}, {"expires_at": -DAY}, False),
        ({"check_in_days": 30, "grace_days": 2}, {"expires_at": -DAY}, False),
        ({"check_in_days": 30, "grace_days": 2, "expiry_strategy": "maintain"}, {"expires_at": -DAY}, True),
        ({"check_in_days": 30}, {"expires_at": DAY}, True),
    ],
)
def test_who_is_overdue(leader: Leading, rules: dict[str, Any], columns: dict[str, Any], is_overdue: bool) -> None:
    now = time.time()
    if "expires_at" in columns:
        columns = columns | {"expires_at": now + columns["expires_at"]}
    sold = sell(leader.database, rules, created_at=now - 40 * DAY, **columns)
    leader.do(record_overdue)
    assert [type for type, _ in said(leader, sold)] == ["license.overdue"] * is_overdue


@pytest.mark.parametrize(("since", "is_overdue"), [(31 * DAY, True), (29 * DAY, False)])
def test_a_full_interval_has_to_pass_after_trouble(leader: Leading, since: float, is_overdue: bool) -> None:
    now = time.time()
    sold = sell(leader.database, {"check_in_days": 30}, created_at=0.0)
    with leader.database.writing() as connection:
        put(connection, tables.watch, [{"id": 1, "since": now - since, "until": now, "looked_at": now}])
    leader.do(record_overdue)
    assert bool(said(leader, sold)) is is_overdue


# -- the outbox -------------------------------------------------------------------------------------------------------


def read(leader: Leading, after: int = 0, limit: int = 100) -> list[Entry]:
    with leader.database.reading() as connection:
        return unsent(connection, after, limit)


def test_what_is_said_of_licenses_is_to_be_told_under_the_events_own_id(leader: Leading) -> None:
    expired = sell(leader.database, expires_at=1.0)
    overdue = sell(leader.database, {"check_in_days": 1}, created_at=0.0)
    leader.do(record_expiries)
    leader.do(record_overdue)
    events = {event["event_id"]: event for event in rows(leader.database, tables.events)}
    entries = read(leader)
    assert [(entry.number, entry.kind, entry.license_id) for entry in entries] == [
        (1, "license.expired", expired.id),
        (2, "license.overdue", overdue.id),
    ]
    for entry in entries:
        assert (events[entry.id]["type"], json.loads(events[entry.id]["data"])) == (entry.kind, entry.data)
        assert entry.created_at == events[entry.id]["occurred_at"]


def test_each_change_of_hands_is_to_be_told_once_whoever_leads_then(ledger_url: str) -> None:
    with leader_and_standby(ledger_url) as (one, two):
        assert one.do(enqueue_cluster_notices) is False
        one.end_the_lease()
        two.take_the_lease()
        two.do(enqueue_cluster_notices)
        (first,) = read(two)
        two.end_the_lease()
        one.take_the_lease()
        one.do_all(enqueue_cluster_notices)
        one.do_all(enqueue_cluster_notices)
        assert read(one)[0] == first
        told = [(entry.kind, entry.data["from"], entry.data["to"], entry.data["epoch"]) for entry in read(one)]
        assert told == [("failover.takeover", "node-1", "node-2", 2), ("failover.takeover", "node-2", "node-1", 3)]


def test_what_replay_found_is_to_be_told_once(leader: Leading) -> None:
    found = [{"event_id": f"e{n}", "kind": kind, "found_at": n} for n in (1, 2) for kind in ("seats", "dead")]
    common = {"license_id": "license", "node": "node-2", "data": '{"seats": 2}'}
    with leader.database.writing() as connection:
        connection.execute(insert(tables.replay_findings), [{**common, **one} for one in found[:3]])
    leader.do(enqueue_cluster_notices)
    with leader.database.writing() as connection:
        connection.execute(insert(tables.replay_findings), {**common, **found[3]})
    leader.do_all(enqueue_cluster_notices)
    leader.do_all(enqueue_cluster_notices)
    entries = read(leader)
    told = sorted((entry.data["event_id"], entry.kind) for entry in entries)
    assert told == [("e1", "replay.dead"), ("e1", "replay.seats"), ("e2", "replay.dead"), ("e2", "replay.seats")]
    assert {entry.license_id for entry in entries} == {"license"}
    assert entries[0].data | {"node": "node-2", "found": {"seats": 2}} == entries[0].data
    assert len(rows(leader.database, tables.replay_findings)) == 4, "what is counted in /stats stays"


def test_an_intent_that_was_not_committed_has_the_same_id_at_the_next_try(leader: Leading) -> None:
    leader.end_the_lease()
    with contextlib.closing(Leading(leader.database.url, 2)) as other:
        tried: list[str] = []

        def fail(writing: Writing) -> bool:
            enqueue_cluster_notices(writing)
            tried.extend(entry.id for entry in unsent(writing.connection))
            raise LookupError

        with pytest.raises(LookupError):
            other.do(fail)
        assert read(other) == []
        other.do(enqueue_cluster_notices)
        assert [entry.id for entry in read(other)] == tried


def test_a_reader_pages_through_what_is_unsent_and_marks_it(leader: Leading) -> None:
    entries = [Entry(id=f"id-{number}", kind="k", license_id=None, data={"n": number}) for number in range(1, 8)]

    def put_in(writing: Writing) -> bool:
        enqueue(writing, entries)
        return False

    leader.do(put_in)
    first = read(leader, limit=3)
    second = read(leader, first[-1].number, 3)
    assert [entry.data["n"] for entry in first + second] == [1, 2, 3, 4, 5, 6]

    def mark(writing: Writing) -> bool:
        mark_sent(writing, ["id-1", "id-3"])
        return False

    leader.do(mark)
    sent = {row["id"]: row["sent_at"] for row in rows(leader.database, tables.outbox) if row["sent_at"]}
    assert sent.keys() == {"id-1", "id-3"}
    leader.do(mark)
    assert {row["id"]: row["sent_at"] for row in rows(leader.database, tables.outbox) if row["sent_at"]} == sent
    assert [entry.number for entry in read(leader)] == [2, 4, 5, 6, 7]
