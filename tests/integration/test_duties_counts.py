"""The leader proves what is kept with licenses, and forgets the machines that no queue can speak of any more."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from api.checks.isolated import to_row
from api.checks.recorder import Recorder
from api.ids import new_id
from api.ledger import tables
from api.ledger.records import Change, Event, LicenseQuery
from api.ledger.store import Ledger
from api.licensing import DAY, MOST_DEPARTED, MOST_NEVER_CAME, Act, Machine
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import SharedState
from api.snapshot import Follower, Reader, Snapshot, source_of
from api.snapshot.evidence import Evidence
from api.supervisor.duties.counts import COUNTED, Proof
from api.supervisor.duties.retention import RetentionPeriods, forget_machines
from api.supervisor.replay import LedgerReplay
from failover.queue import Queued
from tests.contract.test_ledger_recorder import operation
from tests.support.leading import Leading
from tests.support.ledger import with_machines
from tests.support.nodes import Sold, change_machine, events_of, license_row, opened_ledger, rows, sell

_KEEP = RetentionPeriods(checks=DAY, events=DAY, timeout=6.0, gone=7 * DAY)
_FINGERPRINTS = "abcdef"


@pytest.fixture
def leading(ledger_url: str) -> Iterator[Leading]:
    leading = Leading(ledger_url)
    yield leading
    leading.close()


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger


def held(ledger: Ledger, sold: Sold) -> tuple[int, int]:
    """Seats and seats in excess, as the machines' rows have them."""
    active = [row for row in rows(ledger.database, tables.machines, license_id=sold.id) if row["active"]]
    return len(active), sum(bool(row["excess"]) for row in active)


def kept(ledger: Ledger, sold: Sold) -> tuple[int, int]:
    row = license_row(ledger.database, sold)
    return row["seats"], row["excess"]


def test_counts_that_are_not_those_of_the_machines_are_mended_and_said(leading: Leading, ledger: Ledger) -> None:
    recorder = Recorder(ledger, Node("n"), Clock())
    wrong, right = sell(ledger.database), sell(ledger.database)
    for sold in (wrong, right):
        assert recorder._flush_writes([operation(sold, Act.ACTIVATE, fingerprint="a")])
    with ledger.database.writing() as connection:
        connection.execute(update(tables.licenses).where(tables.licenses.c.id == wrong.id).values(seats=5, excess=2))
    proof, before = Proof(), license_row(ledger.database, right)
    leading.do_all(proof)
    assert proof.mended == 1
    assert kept(ledger, wrong) == (1, 0)
    assert license_row(ledger.database, right) == before
    [*_, said] = events_of(ledger.database, wrong)
    assert (said["type"], said["seq"]) == (COUNTED, license_row(ledger.database, wrong)["seq"])
    assert said["data"] == {"kept": {"seats": 5, "excess": 2}, "counted": {"seats": 1, "excess": 0}}
    leading.do_all(proof)
    assert proof.mended == 1


# -- machines that are hidden, or deleted behind the log's back ------------------------------------------------------


class Copying:
    """A node that leads, with its copy of the ledger. `follow` brings that up to date."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.snapshot, self.state, clock = Snapshot(folder / "snapshot.db"), SharedState(None), Clock()
        self._follower = Follower(ledger.database, self.snapshot, clock)
        source = source_of(ledger.database.url)
        self.reader = Reader(folder / "snapshot.db", self.state.changes, clock.monotonic, source=source)
        self.proof = Proof(Evidence(self.reader, ledger.database, self.state.breaker))
        self.recorder = Recorder(ledger, Node("n"), clock)

    def follow(self) -> None:
        while self._follower.poll():
            pass

    def seated(self, sold: Sold, *fingerprints: str) -> None:
        calls = [operation(sold, Act.ACTIVATE, fingerprint=fingerprint) for fingerprint in fingerprints]
        assert all(outcome.verdict.valid for outcome in self.recorder._flush_writes(calls))  # type: ignore[union-attr]


@pytest.fixture
def copying(ledger: Ledger, tmp_path: Path) -> Iterator[Copying]:
    copying = Copying(ledger, tmp_path)
    yield copying
    copying.reader.close()
    copying.snapshot.close()


def delete_machines(ledger: Ledger, sold: Sold, fingerprint: str) -> None:
    """As an operator would, who does not know of the counts."""
    of_it = tables.machines.c.license_id == sold.id, tables.machines.c.fingerprint == fingerprint
    with ledger.database.writing() as connection:
        connection.execute(delete(tables.machines).where(*of_it))


def test_machines_that_the_ledger_does_not_show_free_no_seats_and_others_are_counted(
    leading: Leading, ledger: Ledger, copying: Copying
) -> None:
    hidden, wrong = sell(ledger.database, {"max_machines": 2}), sell(ledger.database)
    for sold in (hidden, wrong):
        copying.seated(sold, "a", "b")
    copying.follow()
    delete_machines(ledger, hidden, "a")
    with ledger.database.writing() as connection:
        connection.execute(update(tables.licenses).where(tables.licenses.c.id == wrong.id).values(seats=5))
    leading.do_all(copying.proof)
    assert (kept(ledger, hidden), kept(ledger, wrong)) == ((2, 0), (2, 0))
    assert copying.proof.mended == 1
    assert copying.state.breaker.is_contradicted
    assert COUNTED not in {row["type"] for row in events_of(ledger.database, hidden)}
    [answer] = copying.recorder._flush_writes([operation(hidden, Act.ACTIVATE, fingerprint="c")])
    assert answer.verdict.code == "MACHINE_LIMIT_EXCEEDED"  # type: ignore[union-attr]


def test_a_contradiction_is_said_for_as_long_as_it_lasts_and_what_is_shown_again_is_no_trouble(
    leading: Leading, ledger: Ledger, copying: Copying
) -> None:
    sold = sell(ledger.database)
    copying.seated(sold, "a")
    copying.follow()
    [row] = rows(ledger.database, tables.machines, license_id=sold.id)
    delete_machines(ledger, sold, "a")
    leading.do_all(copying.proof)
    copying.state.breaker.reconciled()
    leading.do(copying.proof.again)
    assert copying.state.breaker.is_contradicted, "said again before it would be forgotten"
    with ledger.database.writing() as connection:
        connection.execute(insert(tables.machines), row)
    copying.state.breaker.reconciled()
    leading.do(copying.proof.again)
    assert not copying.state.breaker.is_contradicted
    assert (kept(ledger, sold), copying.proof.mended) == ((1, 0), 0)


def test_where_the_copy_is_made_anew_as_an_operator_said_the_rest_is_counted(
    leading: Leading, ledger: Ledger, copying: Copying
) -> None:
    sold = sell(ledger.database)
    copying.seated(sold, "a", "b")
    copying.follow()
    delete_machines(ledger, sold, "a")
    leading.do_all(copying.proof)
    assert (kept(ledger, sold), copying.proof.mended) == ((2, 0), 0)
    with copying.snapshot.writing() as writer:  # what `flask db adopt` comes to
        writer.clear()
    copying.follow()
    leading.do(copying.proof.again)
    assert (kept(ledger, sold), copying.proof.mended) == ((1, 0), 1)


def test_a_machine_that_this_node_queued_is_neither_hidden_nor_counted_before_it_is_replayed(
    leading: Leading, ledger: Ledger, copying: Copying
) -> None:
    sold = sell(ledger.database)
    copying.follow()
    [known] = copying.snapshot.look_up([LicenseQuery(sold.key_hash, "a")])
    assert known.holding is not None
    machine = Machine(id="queued", license_id=sold.id, fingerprint="a", active=True, created_at=1.0)
    after = with_machines(known.holding, machine)
    copying.reader.put_own([(Change(known.holding, after), known.seq)], queued=True)
    with ledger.database.writing() as connection:
        connection.execute(update(tables.licenses).where(tables.licenses.c.id == sold.id).values(seats=5))
    leading.do_all(copying.proof)
    assert kept(ledger, sold) == (5, 0)
    assert not copying.state.breaker.is_contradicted


# -- whatever happened ----------------------------------------------------------------------------------------------


def test_after_any_history_replay_included_the_kept_counts_are_those_of_the_rows(
    leading: Leading, ledger: Ledger, seed: int
) -> None:
    chance, clock = random.Random(seed), Clock()
    recorder, replay = Recorder(ledger, Node("n"), clock), LedgerReplay(ledger, "n", clock)
    sold = [sell(ledger.database, {"max_machines": chance.choice([1, 2, None])}) for _ in range(3)]
    for position in range(60):
        calls = [_any_call(chance, sold) for _ in range(chance.randint(1, 5))]
        if chance.random() < 0.5:
            recorder._flush_writes([operation(one, act, fingerprint=fingerprint) for one, act, fingerprint in calls])
        else:
            replay("origin", [_queued(position * 10 + at, clock, chance, *call) for at, call in enumerate(calls)])
    for one in sold:
        assert kept(ledger, one) == held(ledger, one)
    proof = Proof()
    leading.do_all(proof)
    assert proof.mended == 0


def _any_call(chance: random.Random, sold: list[Sold]) -> tuple[Sold, Act, str]:
    return chance.choice(sold), chance.choice([Act.ACTIVATE, Act.DEACTIVATE, Act.PING]), chance.choice(_FINGERPRINTS)


def _queued(position: int, clock: Clock, chance: random.Random, sold: Sold, act: Act, fingerprint: str) -> Queued:
    """What a node without its ledger answered within the last minute."""
    at, id = clock.now() - chance.uniform(0, 60), new_id()
    data: dict[str, Any] = {"code": "VALID", "valid": True, "call": {"act": act, "fingerprint": fingerprint}}
    body = Event(
        event_id=id, type=act, license_id=sold.id, node="n", instance="i", epoch=1, mode="isolated", occurred_at=at,
        data=data,
    )  # fmt: skip
    return Queued(position, to_row(body), 0, at)


def test_deactivations_of_machines_never_seen_leave_so_many_rows_and_no_more(leading: Leading, ledger: Ledger) -> None:
    recorder, sold = Recorder(ledger, Node("n"), Clock()), sell(ledger.database, {"max_machines": 1})
    for at in range(0, 2 * MOST_NEVER_CAME, 50):
        calls = [operation(sold, Act.DEACTIVATE, fingerprint=f"dead-{at + number}") for number in range(50)]
        assert all(outcome.verdict.valid for outcome in recorder._flush_writes(calls))  # type: ignore[union-attr]
    assert len(rows(ledger.database, tables.machines, license_id=sold.id)) == MOST_NEVER_CAME
    assert recorder._flush_writes([operation(sold, Act.ACTIVATE, fingerprint="pc")])[0].verdict.valid  # type: ignore[union-attr]
    assert kept(ledger, sold) == (1, 0)
    with leading.term.transaction() as writing:
        now = writing.now
    leading.do_all(lambda writing: forget_machines(writing, _KEEP), now + 31 * DAY)
    assert [row["fingerprint"] for row in rows(ledger.database, tables.machines, license_id=sold.id)] == ["pc"]


@pytest.mark.parametrize("rules", [{"max_machines": 1, "moves_per_30d": None}, {}], ids=["one seat", "no limit"])
def test_machines_that_came_and_went_are_so_many_and_no_more(
    rules: dict[str, Any], leading: Leading, ledger: Ledger
) -> None:
    recorder, sold = Recorder(ledger, Node("n"), Clock()), sell(ledger.database, rules)
    gone = {"license_id": sold.id, "active": False, "created_at": 1.0, "seat_at": 2.0}
    already = [{**gone, "id": new_id(), "fingerprint": f"gone-{number}"} for number in range(MOST_DEPARTED - 50)]
    with ledger.database.writing() as connection:
        connection.execute(insert(tables.machines), already)
    codes = Counter[str]()
    for number in range(60):
        both = [operation(sold, act, fingerprint=f"pc-{number}") for act in (Act.ACTIVATE, Act.DEACTIVATE)]
        codes.update(outcome.verdict.code for outcome in recorder._flush_writes(both))  # type: ignore[union-attr]
    assert codes == {"VALID": 50 + 60, "MACHINE_LIMIT_EXCEEDED": 10}
    left = len(rows_of_machines(ledger, sold))
    assert MOST_DEPARTED <= left <= MOST_DEPARTED + MOST_NEVER_CAME
    assert kept(ledger, sold) == (0, 0)
    with leading.term.transaction() as writing:
        now = writing.now
    leading.do_all(lambda writing: forget_machines(writing, _KEEP), now + 31 * DAY)
    assert rows_of_machines(ledger, sold) == []
    assert recorder._flush_writes([operation(sold, Act.ACTIVATE, fingerprint="pc")])[0].verdict.valid  # type: ignore[union-attr]


def rows_of_machines(ledger: Ledger, sold: Sold) -> list[dict[str, Any]]:
    return rows(ledger.database, tables.machines, license_id=sold.id)


def test_a_machine_that_left_is_remembered_for_as_long_as_a_queue_may_speak_of_it(
    leading: Leading, ledger: Ledger
) -> None:
    recorder, sold = Recorder(ledger, Node("n"), Clock()), sell(ledger.database)
    for fingerprint in ("old", "young", "held"):
        recorder._flush_writes([operation(sold, Act.ACTIVATE, fingerprint=fingerprint)])
        if fingerprint != "held":
            recorder._flush_writes([operation(sold, Act.DEACTIVATE, fingerprint=fingerprint)])
    with leading.term.transaction() as writing:
        now = writing.now
    for fingerprint, days in (("old", 31), ("young", 29), ("held", 400)):
        change_machine(ledger.database, sold, fingerprint, created_at=now - 400 * DAY, seat_at=now - days * DAY)
    leading.do_all(lambda writing: forget_machines(writing, _KEEP))
    left = {row["fingerprint"] for row in rows(ledger.database, tables.machines, license_id=sold.id)}
    assert left == {"young", "held"}
