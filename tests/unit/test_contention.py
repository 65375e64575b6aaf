"""Whose trouble it is that a batch is blocked or slow, and what becomes of the others in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from api.checks import contention
from api.checks.contention import Contention, Outcomes
from api.checks.unit_of_work import Operation
from api.ledger.errors import LedgerBusy, LedgerError, LedgerRefused, LedgerSlow, LedgerUnavailable, NoConnection
from api.licensing import Act, Call
from api.node.clock import Clock
from tests.support.clock import FakeClock

_BUDGET_S = 0.5


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "_pause", lambda _attempt: None)


def calls(*licenses: str) -> list[Operation]:
    """One call of each, in this order."""
    return [
        Operation(call=Call(act=Act.USAGE), key_hash=license, event_id=f"{license}-{place}", nonce="n")
        for place, license in enumerate(licenses)
    ]


class Work:
    """A lane's batch: fails with what `bad` says of a license in it, after `takes_s` or a part of that."""

    def __init__(self, clock: FakeClock, bad: dict[str, Exception], takes_s: float = 0.2) -> None:
        self._clock, self._bad, self._takes_s = clock, bad, takes_s
        self.asked: list[int] = []
        self.done: list[str] = []

    def __call__(self, operations: Sequence[Operation], hurried: bool) -> Outcomes:
        self.asked.append(len(operations))
        for operation in operations:
            if error := self._bad.get(operation.key_hash):
                self._clock.time += self._takes_s * (0.2 if hurried else 1.0)
                raise error
        self.done += [operation.event_id for operation in operations]
        return [KeyError(operation.event_id) for operation in operations]  # any outcome that tells whose it is


def told(outcomes: Outcomes) -> list[str]:
    return [type(one).__name__ if isinstance(one, LedgerError) else str(one.args[0]) for one in outcomes]  # type: ignore[union-attr]


@pytest.fixture
def made(clock: FakeClock) -> Callable[[bool], Contention]:
    def make(blocked: bool) -> Contention:
        return Contention(Clock(monotonic=clock), _BUDGET_S, lambda: blocked)

    return make


@pytest.mark.parametrize("error", [LedgerBusy("held"), LedgerSlow("slow")], ids=["held", "slow"])
def test_of_a_full_batch_one_license_is_found_and_no_other_is_told(
    made: Callable[[bool], Contention], clock: FakeClock, error: LedgerError
) -> None:
    batch, work, began = calls(*(f"l{number}" for number in range(64))), Work(clock, {"l17": error}), clock.time
    knows = made(False)
    outcomes = told(knows.carried(work, batch))
    assert outcomes[17] == type(error).__name__
    assert [one for place, one in enumerate(outcomes) if place != 17] == [
        one.event_id for place, one in enumerate(batch) if place != 17
    ]
    assert sorted(work.done) == sorted({one.event_id for one in batch} - {"l17-17"})
    assert clock.time - began < 2 * _BUDGET_S
    assert [one.key_hash for one in batch if knows.goes_alone(one)] == ["l17"]
    clock.time += 11
    assert not knows.goes_alone(batch[17])


def test_on_a_slow_machine_the_good_ones_are_carried_out_all_the_same(
    made: Callable[[bool], Contention], clock: FakeClock
) -> None:
    """The first try alone has taken longer than a batch may be taken apart."""
    work = Work(clock, {"a": LedgerSlow("slow")}, takes_s=2 * _BUDGET_S)
    assert told(made(False).carried(work, calls("a", "b", "c", "d"))) == ["LedgerSlow"] * 4
    work = Work(clock, {"a": LedgerSlow("slow")}, takes_s=1.4 * _BUDGET_S)
    assert told(made(False).carried(work, calls("a", "b", "c", "d"))) == ["LedgerSlow", "b-1", "c-2", "d-3"]


def test_a_part_for_which_no_connection_is_free_blames_no_license(
    made: Callable[[bool], Contention], clock: FakeClock
) -> None:
    work = Work(clock, {"a": LedgerSlow("slow"), "b": NoConnection("none")})
    knows, batch = made(False), calls("a", "b", "c")
    assert told(knows.carried(work, batch)) == ["LedgerSlow", "NoConnection", "c-2"]
    assert [knows.goes_alone(one) for one in batch] == [True, False, False]


def test_a_table_that_is_locked_is_a_ledger_that_is_away(made: Callable[[bool], Contention], clock: FakeClock) -> None:
    work = Work(clock, {"a": LedgerBusy("held")})
    with pytest.raises(LedgerUnavailable):
        made(True).carried(work, calls("a", "b"))
    assert work.asked == [2]


def test_where_everything_is_slow_the_rest_is_told_so_in_time(
    made: Callable[[bool], Contention], clock: FakeClock
) -> None:
    names, began = [f"l{number}" for number in range(64)], clock.time
    work = Work(clock, dict.fromkeys(names, LedgerSlow("slow")), takes_s=0.3)
    assert set(told(made(False).carried(work, calls(*names)))) == {"LedgerSlow"}
    assert clock.time - began < 2 * _BUDGET_S


def test_without_a_connection_nothing_is_known_of_anybody(made: Callable[[bool], Contention], clock: FakeClock) -> None:
    knows, batch = made(True), calls("a", "b")
    work = Work(clock, {"a": NoConnection("none")})
    assert told(knows.carried(work, batch)) == ["NoConnection"] * 2
    assert work.asked == [2]
    assert not knows.goes_alone(batch[0])


def test_one_that_is_refused_costs_no_other_its_answer(made: Callable[[bool], Contention], clock: FakeClock) -> None:
    work = Work(clock, {"b": LedgerRefused("never")})
    assert told(made(False).carried(work, calls("a", "b", "c"))) == ["a-0", "LedgerRefused", "c-2"]


def test_a_ledger_that_goes_away_under_a_part_is_away_for_all(
    made: Callable[[bool], Contention], clock: FakeClock
) -> None:
    work = Work(clock, {"a": LedgerBusy("held"), "b": LedgerUnavailable("gone")})
    with pytest.raises(LedgerUnavailable):
        made(False).carried(work, calls("a", "b"))


def test_licenses_that_wait_alone_are_tried_in_turn_and_each_gets_its_own_answer(
    made: Callable[[bool], Contention], clock: FakeClock
) -> None:
    work, began = Work(clock, {"held": LedgerBusy("held"), "slow": LedgerSlow("slow")}), clock.time
    knows, batch = made(False), calls("held", "a", "slow", "held", "b")
    assert told(knows.carried_alone(work, batch)) == ["LedgerBusy", "a-1", "LedgerSlow", "LedgerBusy", "b-4"]
    assert work.done == ["a-1", "b-4"]
    assert work.asked.count(1) == 3, "a slow one is not tried again"
    assert _BUDGET_S <= clock.time - began < 2 * _BUDGET_S
    assert {one.key_hash for one in batch if knows.goes_alone(one)} == {"held", "slow"}


def test_tables_that_are_locked_are_found_by_one_that_waits_alone_and_cost_no_other_its_answer(
    made: Callable[[bool], Contention], clock: FakeClock
) -> None:
    work = Work(clock, {"held": LedgerBusy("held")})
    knows, batch = made(True), calls("held", "a")
    assert told(knows.carried_alone(work, batch)) == ["LedgerUnavailable", "a-1"]
    assert not knows.goes_alone(batch[0])


@pytest.mark.parametrize("error", [LedgerUnavailable("gone"), NoConnection("none")], ids=["gone", "none"])
def test_a_ledger_that_cannot_be_asked_about_its_locks_costs_no_other_its_answer(
    clock: FakeClock, error: LedgerError
) -> None:
    def fail() -> bool:
        raise error

    work = Work(clock, {"held": LedgerBusy("held")})
    outcomes = told(Contention(Clock(monotonic=clock), _BUDGET_S, fail).carried_alone(work, calls("held", "a")))
    assert outcomes == [type(error).__name__, "a-1"]


def test_one_that_is_let_go_of_in_time_is_answered(made: Callable[[bool], Contention], clock: FakeClock) -> None:
    bad: dict[str, Exception] = {"held": LedgerBusy("held")}
    work = Work(clock, bad)

    def free_after_three(operations: Sequence[Operation], hurried: bool) -> Outcomes:
        if len(work.asked) == 3:
            bad.clear()
        return work(operations, hurried)

    assert told(made(False).carried_alone(free_after_three, calls("held"))) == ["held-0"]
