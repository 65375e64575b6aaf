"""What the recorder leaves to a ledger: batches in one order, tries that end, and nothing counted twice or lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from api.checks.batcher import BacklogFull, Batcher, FlushTimeout, identity
from api.checks.recorder import LicenseHeld, Recorder
from api.checks.unit_of_work import Operation, Outcome, RequestIdReused, UnitOfWork
from api.ids import new_id
from api.ledger import tables
from api.ledger.errors import LedgerBusy, LedgerError, LedgerRefused, LedgerUnavailable
from api.ledger.records import Batch, LicenseQuery, LicenseRecord
from api.ledger.store import Ledger
from api.licensing import Act, Call
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import SharedState
from tests.support.nodes import Sold, events_of, opened_ledger, rows, sell
from tests.support.processes import until

Fault = Callable[[], LedgerError | None]


class Faulty:
    """A ledger that fails as it is told: `before` a call is passed on, or `after` it was carried out."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.before: list[LedgerError] = []
        self.after: list[LedgerError] = []
        self.calls: list[str] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def database(self) -> Any:
        return self._ledger.database

    def look_up(self, asks: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        return self._ledger.look_up(asks)

    def has_event(self, event_id: str) -> bool:
        self.calls.append("has_event")
        return self._ledger.has_event(event_id)

    def append(self, batch: Batch) -> None:
        self._fail("append", self.before)
        self._ledger.append(batch)
        self._fail("appended", self.after)

    @contextlib.contextmanager
    def transaction(self, asks: Sequence[LicenseQuery], *, skip_locked: bool = False) -> Iterator[Any]:
        self._fail("transaction", self.before)
        with self._ledger.transaction(asks, skip_locked=skip_locked) as transaction:
            yield transaction
        self._fail("committed", self.after)

    def is_blocked(self) -> bool:
        return False

    def _fail(self, call: str, faults: list[LedgerError]) -> None:
        self.calls.append(call)
        assert self.held.wait(30)
        if faults:
            raise faults.pop(0)


@pytest.fixture
def faulty(ledger_url: str) -> Iterator[Faulty]:
    with opened_ledger(ledger_url) as ledger:
        yield Faulty(ledger)


@pytest.fixture
def recorder(faulty: Faulty) -> Recorder:
    return Recorder(faulty, Node("n"), Clock())


def operation(sold: Sold, act: Act, **fields: Any) -> Operation:
    body_hash = "b" if act is Act.USAGE else None
    call = Call(act=act, **fields)
    return Operation(call=call, key_hash=sold.key_hash, event_id=new_id(), nonce=new_id(), body_hash=body_hash)


def count(faulty: Faulty, code: str) -> int:
    return sum(row["count"] for row in rows(faulty.database, tables.check_minutes, code=code))


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_break_before_or_after_the_commit_leaves_one_event(
    faulty: Faulty, recorder: Recorder, act: Act, when: str
) -> None:
    sold = sell(faulty.database)
    getattr(faulty, when).append(LedgerUnavailable("broken"))
    done = operation(sold, act)
    outcome = recorder.submit(done, identity)
    assert (outcome.verdict.code, outcome.event_id, outcome.first) == ("VALID", done.event_id, True)
    assert [row["event_id"] for row in events_of(faulty.database, sold)] == [done.event_id]
    assert count(faulty, "VALID") == 1
    assert rows(faulty.database, tables.licenses)[0]["uses"] == (1 if act is Act.USAGE else 0)


class Told:
    """What a begun call was told, each time that it was."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self._told = threading.Event()

    def __call__(self, outcome: Any) -> None:
        self.outcomes.append(outcome)
        self._told.set()

    def only(self) -> Any:
        """What it was told, once."""
        assert self._told.wait(30)
        [outcome] = self.outcomes
        return outcome


class WithoutIt:
    """`Isolated`, as far as a recorder knows it: each call's outcome is `queued`, or that the backlog is full."""

    def __init__(self, room: int = 512) -> None:
        self.taken: list[Operation] = []
        self.lane: Batcher[Operation, Any] = Batcher(self._flush, max_batch=64, max_waiting=room, patience_s=5.0)

    def _flush(self, operations: list[Operation]) -> list[str]:
        self.taken += operations
        return ["queued"] * len(operations)

    def holds(self, _operation: Operation) -> bool:
        return False


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
def test_a_begun_call_is_told_once_what_its_finish_makes_of_it(faulty: Faulty, recorder: Recorder, act: Act) -> None:
    sold, told = sell(faulty.database), Told()
    recorder.begin(operation(sold, act), lambda outcome: outcome.verdict.code, told)
    assert told.only() == "VALID"
    assert len(events_of(faulty.database, sold)) == 1


def test_a_begun_check_that_turns_out_to_change_something_goes_on_as_a_write(
    faulty: Faulty, recorder: Recorder
) -> None:
    sold = sell(faulty.database, {"expiry_basis": "first_validation", "duration_days": 1})
    told = Told()
    recorder.begin(operation(sold, Act.VALIDATE), lambda outcome: outcome.verdict.code, told)
    assert told.only() == "VALID"
    assert rows(faulty.database, tables.licenses)[0]["expires_at"] is not None


@pytest.mark.parametrize("fault", [LedgerRefused, LedgerBusy])
def test_a_begun_call_is_told_what_the_ledger_said_to_it(
    faulty: Faulty, recorder: Recorder, fault: type[LedgerError]
) -> None:
    sold, told = sell(faulty.database), Told()
    faulty.before = [fault("again and again") for _ in range(50)]
    recorder.begin(operation(sold, Act.VALIDATE), identity, told)
    assert isinstance(told.only(), fault)


def cut_off_recorder(faulty: Faulty, room: int = 512) -> tuple[Recorder, WithoutIt, SharedState]:
    isolated, state = WithoutIt(room), SharedState(None)
    return Recorder(faulty, Node("n"), Clock(), state=state, isolated=isolated), isolated, state  # type: ignore[arg-type]


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
def test_calls_begun_when_the_ledger_breaks_go_on_without_it_and_each_is_told_once(faulty: Faulty, act: Act) -> None:
    sold = sell(faulty.database)
    recorder, isolated, state = cut_off_recorder(faulty)
    faulty.before = [LedgerUnavailable("broken") for _ in range(500)]
    begun = [(operation(sold, act), Told()) for _ in range(100)]
    for one, told in begun:
        recorder.begin(one, lambda outcome: f"{outcome}, finished", told)
    assert [told.only() for _, told in begun] == ["queued, finished"] * 100
    assert state.breaker.isolated_since is not None
    assert {one.event_id for one in isolated.taken} == {one.event_id for one, _ in begun}
    assert len(isolated.taken) == 100
    assert events_of(faulty.database, sold) == []


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
def test_calls_that_the_ledger_refuses_go_on_without_it_and_cut_nobody_off(faulty: Faulty, act: Act) -> None:
    """A constraint that an operator added refuses everybody's: none of them is at fault, nor is the ledger away."""
    sold = sell(faulty.database)
    recorder, isolated, state = cut_off_recorder(faulty)
    faulty.before = [LedgerRefused("SQLSTATE 23514")] * 500
    begun = [(operation(sold, act), Told()) for _ in range(20)]
    for one, told in begun:
        recorder.begin(one, identity, told)
    assert [told.only() for _, told in begun] == ["queued"] * 20
    assert len(isolated.taken) == 20
    assert state.breaker.isolated_since is None


def test_a_call_that_finds_no_room_without_the_ledger_either_is_told_so(faulty: Faulty) -> None:
    recorder, _, _ = cut_off_recorder(faulty, room=0)
    faulty.before = [LedgerUnavailable("broken") for _ in range(2)]
    told = Told()
    recorder.begin(operation(sell(faulty.database), Act.VALIDATE), identity, told)
    assert isinstance(told.only(), BacklogFull)
    with pytest.raises(BacklogFull):
        recorder.begin(operation(sell(faulty.database), Act.VALIDATE), identity, told)


def test_a_ledger_that_is_found_to_be_away_after_its_callers_have_left_cuts_the_node_off(faulty: Faulty) -> None:
    recorder, isolated, state = cut_off_recorder(faulty)
    sold, told = sell(faulty.database), Told()
    faulty.before = [LedgerUnavailable("broken") for _ in range(2)]
    faulty.held.clear()
    recorder.begin(operation(sold, Act.VALIDATE), identity, told)
    until(lambda: faulty.calls, "it is under way")
    recorder._checks.give_up(time.monotonic() + 60)
    assert isinstance(told.only(), FlushTimeout)
    assert recorder.longest(time.monotonic() + 60) >= 60
    faulty.held.set()
    until(lambda: state.breaker.isolated_since is not None, "it is cut off")
    assert isolated.taken == []


def test_a_lane_is_found_at_once_unless_something_may_wait_in_the_queue(faulty: Faulty, recorder: Recorder) -> None:
    assert recorder.is_non_blocking, "it has no queue"
    recorder, _, state = cut_off_recorder(faulty)
    assert recorder.is_non_blocking
    state.breaker.will_queue()
    assert not recorder.is_non_blocking
    state.breaker.isolate()
    assert recorder.is_non_blocking, "all go there"


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
def test_rows_that_others_hold_are_asked_for_again(faulty: Faulty, recorder: Recorder, act: Act) -> None:
    sold = sell(faulty.database)
    faulty.before = [LedgerBusy("held")] * 4
    assert recorder.submit(operation(sold, act), identity).verdict.code == "VALID"
    assert len(events_of(faulty.database, sold)) == 1


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
@pytest.mark.parametrize(
    ("fault", "told"),
    [(LedgerBusy, LedgerBusy), (LedgerUnavailable, LedgerUnavailable), (LedgerRefused, LedgerRefused)],
)
def test_tries_end_and_nothing_is_left(
    faulty: Faulty, recorder: Recorder, act: Act, fault: type[LedgerError], told: type[LedgerError]
) -> None:
    sold = sell(faulty.database)
    faulty.before = [fault("again and again") for _ in range(50)]
    with pytest.raises(told):
        recorder.submit(operation(sold, act), identity)
    assert len(faulty.calls) < 20
    assert events_of(faulty.database, sold) == []


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
def test_who_is_busy_for_long_is_not_asked_again(faulty: Faulty, act: Act) -> None:
    """A SQLite file is waited for 5 s a try; a batch that takes 10 s has its worker taken for hung."""
    sold, now = sell(faulty.database), [1000.0]
    clock = Clock(monotonic=lambda: now[0])

    def fail(_call: str, _faults: list[LedgerError]) -> None:
        faulty.calls.append("asked")
        now[0] += 5.0
        raise LedgerBusy("another process is writing")

    faulty._fail = fail  # type: ignore[method-assign]
    with pytest.raises(LedgerBusy):
        Recorder(faulty, Node("n"), clock).submit(operation(sold, act), identity)
    assert faulty.calls == ["asked"]


def test_a_held_row_after_a_broken_connection_is_asked_for_again(faulty: Faulty, recorder: Recorder) -> None:
    """What the lost connection still holds is free when the server has noticed."""
    sold = sell(faulty.database)
    faulty.before = [LedgerUnavailable("broken"), LedgerBusy("held"), LedgerBusy("held")]
    assert recorder.submit(operation(sold, Act.USAGE), identity).verdict.code == "VALID"


def test_one_call_that_is_refused_does_not_cost_the_others_their_answer(faulty: Faulty, recorder: Recorder) -> None:
    sold = sell(faulty.database)
    taken = operation(sold, Act.VALIDATE)
    recorder.submit(taken, identity)
    outcomes = recorder._flush_checks([operation(sold, Act.VALIDATE), taken, operation(sold, Act.VALIDATE)])
    assert [type(outcome) for outcome in outcomes] == [Outcome, LedgerRefused, Outcome]
    assert len(events_of(faulty.database, sold)) == 3


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.ACTIVATE])
@pytest.mark.parametrize("unsendable", ["a\ud800b", "a\x00b"])
def test_a_value_that_the_driver_cannot_send_costs_its_own_call_only(
    faulty: Faulty, recorder: Recorder, act: Act, unsendable: str
) -> None:
    sold = sell(faulty.database)
    fine, broken = operation(sold, act, fingerprint="pc"), operation(sold, act, fingerprint=unsendable)
    flush = recorder._flush_checks if act is Act.VALIDATE else recorder._flush_writes
    first, second, third = flush([fine, broken, operation(sold, act, fingerprint="pc")])
    assert (type(first), type(third)) == (Outcome, Outcome)
    if isinstance(second, Outcome):  # SQLite keeps a NUL
        assert (unsendable, faulty.database.is_sqlite) == ("a\x00b", True)
    else:
        assert isinstance(second, LedgerRefused | UnicodeError)


def test_unknown_keys_are_counted_with_the_next_batch_that_is_committed(faulty: Faulty, recorder: Recorder) -> None:
    sold = sell(faulty.database)
    nobody = Sold("none", "nobody-has-this-key")
    for _ in range(3):
        assert recorder.unknown(operation(nobody, Act.VALIDATE), 7.0).as_of == 7.0
    faulty.before = [LedgerRefused("never")] * 2
    with pytest.raises(LedgerRefused):
        recorder.submit(operation(sold, Act.VALIDATE), identity)
    faulty.before = []
    recorder.submit(operation(sold, Act.VALIDATE), identity)
    assert count(faulty, "NOT_FOUND") == 3


def test_calls_of_one_batch_see_what_the_ones_before_them_did(faulty: Faulty, recorder: Recorder) -> None:
    sold, other = sell(faulty.database, {"max_machines": 2, "max_uses": 3}), sell(faulty.database)
    batch = [operation(sold, Act.ACTIVATE, fingerprint=name) for name in "abca"]
    batch += [operation(sold, Act.USAGE, increment=2) for _ in range(2)] + [operation(other, Act.USAGE, increment=2)]
    batch += [operation(sold, Act.DEACTIVATE, fingerprint="a"), operation(sold, Act.ACTIVATE, fingerprint="c")]
    codes = [outcome.verdict.code for outcome in recorder._flush_writes(batch) if isinstance(outcome, Outcome)]
    assert codes == [
        "VALID",
        "VALID",
        "MACHINE_LIMIT_EXCEEDED",
        "VALID",
        "VALID",
        "USES_EXHAUSTED",
        "VALID",
        "VALID",
        "VALID",
    ]
    assert [row["event_id"] for row in rows(faulty.database, tables.events)] == [one.event_id for one in batch]
    row = rows(faulty.database, tables.licenses, id=sold.id)[0]
    assert (row["seats"], row["uses"]) == (2, 2)
    machines = rows(faulty.database, tables.machines, license_id=sold.id)
    assert {row["fingerprint"]: bool(row["active"]) for row in machines} == {"a": False, "b": True, "c": True}


def test_retries_within_one_batch_are_one_event(faulty: Faulty, recorder: Recorder) -> None:
    sold = sell(faulty.database)
    first = operation(sold, Act.USAGE, increment=5)
    other = Operation(call=first.call, key_hash=first.key_hash, event_id=first.event_id, nonce="x", body_hash="other")
    outcomes = recorder._flush_writes([first, first, other])
    assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome, RequestIdReused]
    assert len(events_of(faulty.database, sold)) == 1
    assert rows(faulty.database, tables.licenses)[0]["uses"] == 5


def test_counts_are_written_in_one_order_whatever_the_order_of_the_calls(faulty: Faulty) -> None:
    """Two lanes of one process write the same rows; in two orders they would wait for each other in a circle."""
    good, bad = sell(faulty.database), sell(faulty.database, status="banned")
    orders = []
    for sold in ([good, bad], [bad, good]):
        draft = UnitOfWork(Node("n"), 60.0, {})
        known = faulty.look_up([LicenseQuery(one.key_hash) for one in sold])
        for one, answer in zip(sold, known, strict=True):
            draft.check(operation(one, Act.VALIDATE), answer)
        orders.append([(tally.code, tally.count) for tally in draft.batch().tallies])
    assert orders[0] == orders[1] == [("BANNED", 1), ("VALID", 1)]


class Doubting:
    """`Evidence` that doubts every first answer, and while it asks, somebody takes the license for a moment."""

    def __init__(self, other: Ledger, sold: Sold) -> None:
        self._other, self._sold = other, sold
        self.held = threading.Event()
        self.holders: list[threading.Thread] = []

    def suspects(self, asks: Sequence[LicenseQuery], _known: Sequence[LicenseRecord]) -> set[int]:
        return set(range(len(asks)))

    def examine(self, _ask: LicenseQuery, _known: LicenseRecord) -> None:
        self.holders.append(threading.Thread(target=self._hold))
        self.holders[-1].start()
        assert self.held.wait(30)

    def _hold(self) -> None:
        with self._other.transaction([LicenseQuery(self._sold.key_hash)]):
            self.held.set()
            time.sleep(0.1)  # long enough to be in the way, short of the lock's time-out


@pytest.mark.parametrize("lane", ["_flush_writes", "_flush_alone"])
def test_a_license_that_others_take_while_the_copy_is_heard_is_waited_for_in_the_lane_that_may(
    postgres_url: str, lane: str
) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        sold = sell(ledger.database)
        evidence: Any = Doubting(other, sold)
        recorder = Recorder(ledger, Node("n"), Clock(), evidence=evidence, budget_s=2.5)
        [outcome] = getattr(recorder, lane)([operation(sold, Act.USAGE)])
        assert type(outcome) is (LicenseHeld if lane == "_flush_writes" else Outcome)
        told = Told()
        evidence.held.clear()
        recorder.begin(operation(sold, Act.USAGE), identity, told)
        assert told.only().verdict.code == "VALID"
        for holder in evidence.holders:
            holder.join(30)
