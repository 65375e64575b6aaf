"""When which duty is done: the one that has been due for longest, none of a node that does not lead, none too often."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.ledger.errors import LedgerBusy, LedgerUnavailable
from api.supervisor.duties.leader import Duties, Duty, DutyFailed
from failover.errors import NotLeading


class Office:
    """A term without a ledger, and a clock that a duty moves by what it takes."""

    def __init__(self) -> None:
        self.leads = True
        self.time = 100.0
        self.done: list[str] = []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        if not self.leads:
            raise NotLeading("another leads")
        yield self

    def duty(self, name: str, every_s: float, *, takes: float = 0.0, chunks: int = 1, **more: Any) -> Duty:
        def do(_: object) -> bool:
            self.done.append(name)
            self.time += takes
            return self.done.count(name) % chunks != 0

        return Duty(name, every_s, do, **more)

    def duties(self, *duties: Duty) -> Duties:
        return Duties(self, duties, lambda: self.time)  # type: ignore[arg-type]

    def ticks(self, duties: Duties, count: int, apart: float = 0.25) -> list[str]:
        """What was done in so many ticks."""
        begin = len(self.done)
        for _ in range(count):
            duties.tick()
            self.time += apart
        return self.done[begin:]


@pytest.fixture
def office() -> Office:
    return Office()


def failing(error: Exception) -> Callable[[object], bool]:
    def do(_: object) -> bool:
        raise error

    return do


def test_a_new_leader_does_each_once_in_their_order_and_then_each_at_its_time(office: Office) -> None:
    duties = office.duties(office.duty("a", 1.0), office.duty("b", 10.0), office.duty("c", 1.5))
    assert office.ticks(duties, 3) == ["a", "b", "c"]
    assert office.ticks(duties, 17) == ["a", "a", "c", "a", "c", "a"]


def test_a_node_that_does_not_lead_does_nothing_and_begins_anew_when_it_does(office: Office) -> None:
    duties = office.duties(office.duty("a", 1000.0), office.duty("b", 1000.0))
    office.ticks(duties, 2)
    office.leads = False
    assert office.ticks(duties, 3) == []
    office.leads = True
    assert office.ticks(duties, 3) == ["a", "b"]


def test_one_that_goes_on_leaves_a_turn_to_the_others(office: Office) -> None:
    endless = office.duty("endless", 1.0, takes=0.3, chunks=10**9, cost_factor=0.0)
    duties = office.duties(endless, office.duty("other", 1.0))
    assert office.ticks(duties, 2) == ["endless"] * 4 + ["other"]


def test_one_that_costs_much_is_done_less_often_unless_it_may_not_be_late(office: Office) -> None:
    duties = office.duties(office.duty("costly", 1.0, takes=0.5))
    assert len(office.ticks(duties, 45)) == 2
    office.done.clear()
    duties = office.duties(office.duty("prompt", 1.0, takes=0.5, cost_factor=0.0))
    assert len(office.ticks(duties, 40)) > 10


def test_one_that_fails_is_said_until_it_succeeds_and_keeps_no_other_from_its_turn(office: Office) -> None:
    broken = Duty("broken", 1.0, failing(LedgerUnavailable("gone")))
    duties = office.duties(broken, office.duty("sound", 1.0))
    with pytest.raises(DutyFailed, match="broken: LedgerUnavailable: gone"):
        duties.tick()
    with pytest.raises(DutyFailed):
        duties.tick()
    assert office.done == ["sound"]


def test_one_that_was_mended_is_said_no_more(office: Office) -> None:
    errors: list[Exception] = [ValueError("once")]

    def do(_: object) -> bool:
        while errors:
            raise errors.pop()
        return False

    duties = office.duties(Duty("a", 1.0, do))
    with pytest.raises(DutyFailed):
        duties.tick()
    office.time += 2
    duties.tick()


@pytest.mark.parametrize("error", [LedgerBusy("held"), NotLeading("another leads")])
def test_having_to_wait_is_no_failure(office: Office, error: Exception) -> None:
    duties = office.duties(Duty("a", 1.0, failing(error)), office.duty("b", 1.0))
    assert office.ticks(duties, 2) == ["b"]


def test_while_nothing_is_added_to_the_log_each_rests_for_longer(office: Office) -> None:
    head = [7]
    duty = office.duty("a", 1.0, quiet_s=4.0)
    duties = Duties(office, [duty], lambda: office.time, lambda: head[0])  # type: ignore[arg-type]
    assert len(office.ticks(duties, 33)) == 3, "in eight seconds"
    assert office.ticks(duties, 2) == []
    head[0] += 1
    assert office.ticks(duties, 4) == ["a"], "the log has moved"
    assert office.ticks(duties, 8) == [], "and stands still again"
