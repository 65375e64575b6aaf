"""What replay makes of calls that were answered elsewhere: nothing is lost, whatever the order of the queues."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from api.licensing import DAY, MOST_DEPARTED, Act, Call, Code, Holding, License, Machine, Past, Policy, decide, merge

NOW = 1_764_000_000.0
PC, LAPTOP = "pc", "laptop"

_POLICY = Policy(id="p", product="app", name="P", machine_heartbeat_s=600, duration_days=30)


def _holding(*machines: Machine, seats: int | None = None, **license: object) -> Holding:
    own = License(id="l", policy=_POLICY, max_machines=1, max_uses=10, created_at=NOW - DAY)
    return Holding(
        license=replace(own, **license),
        seats=sum(machine.active for machine in machines) if seats is None else seats,
        machines={machine.fingerprint: machine for machine in machines},
    )


def _machine(fingerprint: str = PC, **changes: object) -> Machine:
    seated = Machine(id=fingerprint, license_id="l", fingerprint=fingerprint, created_at=NOW - 100, seat_at=NOW - 100)
    return replace(seated, **changes)


def _past(act: Act, at: float, fingerprint: str | None = PC, **more: object) -> Past:
    call = Call(act=act, fingerprint=fingerprint, increment=int(str(more.pop("increment", 1))))
    past = Past(call=call, code=Code.VALID, valid=True, at=at)
    return replace(past, **more)


# -- usage and seats --------------------------------------------------------------------------------------------------


def test_usage_adds_and_uses_beyond_the_limit_are_kept_and_told() -> None:
    merged = merge(_past(Act.USAGE, NOW, None, increment=3), _holding(uses=6))
    assert (merged.holding.license.uses, merged.conflicts) == (9, ())
    merged = merge(_past(Act.USAGE, NOW, None, increment=3), merged.holding)
    assert (merged.holding.license.uses, merged.conflicts) == (12, ("uses",))


def test_a_seat_that_is_left_is_taken_and_one_too_many_is_kept_and_told() -> None:
    merged = merge(_past(Act.ACTIVATE, NOW), _holding())
    assert (merged.holding.seats, merged.holding.excess, merged.conflicts) == (1, 0, ())
    merged = merge(_past(Act.ACTIVATE, NOW + 1, LAPTOP), merged.holding)
    assert (merged.holding.seats, merged.holding.excess, merged.conflicts) == (2, 1, ("seats",))
    laptop = merged.holding.machines[LAPTOP]
    assert (laptop.active, laptop.excess, laptop.seat_at) == (True, True, NOW + 1)
    assert merged.holding.license.max_machines == 1


def test_a_machine_that_was_let_in_elsewhere_is_kept_where_too_many_have_left() -> None:
    merged = merge(_past(Act.ACTIVATE, NOW), replace(_holding(), departed=MOST_DEPARTED))
    assert (merged.holding.seats, merged.holding.excess, merged.conflicts) == (1, 1, ("seats",))
    assert merged.holding.departed == MOST_DEPARTED


def test_the_same_activation_again_changes_nothing() -> None:
    once = merge(_past(Act.ACTIVATE, NOW), _holding()).holding
    assert merge(_past(Act.ACTIVATE, NOW), once).holding == once


def test_of_activation_and_deactivation_the_later_one_wins_in_either_order() -> None:
    comes, goes = _past(Act.ACTIVATE, NOW), _past(Act.DEACTIVATE, NOW + 1)
    for order in itertools.permutations((comes, goes)):
        holding = _holding(_machine())
        for past in order:
            holding = merge(past, holding).holding
        assert (holding.seats, holding.machines[PC].active, holding.machines[PC].seat_at) == (0, False, NOW + 1)


def test_a_machine_that_left_before_it_was_known_to_have_come_is_not_brought_back() -> None:
    left = merge(_past(Act.DEACTIVATE, NOW + 1), _holding()).holding
    assert merge(_past(Act.ACTIVATE, NOW), left).holding.seats == 0
    again = merge(_past(Act.ACTIVATE, NOW + 2), left).holding
    assert (again.seats, again.arrivals, again.machines[PC].created_at) == (1, 1, NOW + 2)
    gone = _holding(_machine(active=False), seats=0)
    verdict = decide(Call(act=Act.DEACTIVATE, fingerprint=PC), gone, NOW + 1)
    assert verdict.holding is not None
    assert merge(_past(Act.ACTIVATE, NOW), verdict.holding).holding.seats == 0


def test_a_seat_freed_by_a_later_call_is_not_taken_again_by_an_earlier_one() -> None:
    holding = _holding(_machine(active=False, seat_at=NOW), seats=0)
    assert merge(_past(Act.ACTIVATE, NOW - 1), holding).holding.seats == 0
    assert merge(_past(Act.ACTIVATE, NOW + 1), holding).holding.seats == 1


def test_a_seat_taken_by_a_later_call_is_not_freed_by_an_earlier_one() -> None:
    holding = _holding(_machine(active=True, seat_at=NOW))
    assert merge(_past(Act.DEACTIVATE, NOW - 1), holding).holding.seats == 1
    assert merge(_past(Act.DEACTIVATE, NOW + 1), holding).holding.seats == 0


@pytest.mark.parametrize(("ahead", "seats"), [(30.0, 1), (3_600.0, 0), (2 * 365 * DAY, 0)])
def test_a_seat_taken_at_a_moment_to_come_is_not_taken_later_than_a_deactivation_after_it(
    ahead: float, seats: int
) -> None:
    """The ledger's clock was set ahead when it was taken; half a minute is what clocks may differ by."""
    holding = _holding(_machine(seat_at=NOW + ahead))
    left = merge(_past(Act.DEACTIVATE, NOW - 1, latest=NOW + 60), holding).holding
    assert left.seats == seats
    assert left.machines[PC].seat_at == (NOW + ahead if seats else NOW - 1)


def test_a_machine_that_left_at_a_moment_to_come_is_let_in_again_and_so_is_one_that_came_then() -> None:
    for machine in (
        _machine(active=False, seat_at=NOW + DAY),
        _machine(active=False, created_at=NOW + DAY, seat_at=None),
    ):
        come = merge(_past(Act.ACTIVATE, NOW - 1, latest=NOW + 60), _holding(machine, seats=0)).holding
        assert (come.seats, come.machines[PC].seat_at) == (1, NOW - 1)


def test_a_culled_machine_that_comes_back_by_its_ping_has_its_seat_since_no_moment_to_come() -> None:
    culled = _machine(active=False, culled=True, seat_at=NOW + DAY)
    ping = _past(Act.PING, NOW, latest=NOW + 60)
    back = merge(ping, _holding(culled, seats=0)).holding
    assert (back.seats, back.machines[PC].seat_at, back.machines[PC].heartbeat_at) == (1, NOW - 100, NOW)
    left = merge(ping, _holding(replace(culled, culled=False), seats=0)).holding
    assert (left.seats, left.machines[PC].heartbeat_at) == (0, NOW)


def test_a_denied_call_has_no_effect() -> None:
    for act in (Act.ACTIVATE, Act.USAGE):
        holding = _holding()
        denied = replace(_past(act, NOW), valid=False, code=Code.BANNED)
        assert merge(denied, holding).holding is holding


# -- pings, check-ins and clocks --------------------------------------------------------------------------------------


def test_a_ping_is_kept_whatever_earlier_coming_and_going_is_replayed_around_it() -> None:
    goes, comes = _past(Act.DEACTIVATE, NOW - 20), _past(Act.ACTIVATE, NOW - 10)
    for order in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
        holding = _holding(_machine(heartbeat_at=NOW - 50))
        for past in [(goes, comes, _past(Act.PING, NOW))[place] for place in order]:
            holding = merge(past, holding).holding
        pc = holding.machines[PC]
        assert (pc.active, pc.seat_at, pc.heartbeat_at, holding.seats) == (True, NOW - 10, NOW, 1)


def test_a_ping_of_a_machine_whose_coming_is_replayed_later_is_kept_and_a_denied_one_is_not() -> None:
    ping, comes = _past(Act.PING, NOW), _past(Act.ACTIVATE, NOW - 10)
    denied = replace(ping, valid=False, code=Code.NO_MACHINES)
    for past, beaten in ((ping, NOW), (denied, None)):
        early = merge(past, _holding()).holding
        assert (early.seats, early.arrivals) == (0, 0)
        late = merge(comes, early).holding
        assert (late.seats, late.arrivals, late.machines[PC].heartbeat_at) == (1, 1, beaten)
        assert late.machines[PC].created_at == NOW - 10


def test_a_machine_that_comes_again_begins_without_the_heartbeat_of_before() -> None:
    holding = _holding(_machine(heartbeat_at=NOW - 50))
    for past in (_past(Act.DEACTIVATE, NOW - 20), _past(Act.ACTIVATE, NOW - 10)):
        holding = merge(past, holding).holding
        assert holding.machines[PC].heartbeat_at is None
    left = merge(_past(Act.DEACTIVATE, NOW), holding).holding
    assert merge(_past(Act.PING, NOW - 1), left).holding.machines[PC].heartbeat_at is None


def test_pings_and_check_ins_take_the_later_time() -> None:
    for first, second in ((NOW, NOW - 50), (NOW - 50, NOW)):
        holding = _holding(_machine())
        for at in (first, second):
            holding = merge(_past(Act.PING, at), holding).holding
            holding = merge(_past(Act.CHECK_IN, at, None), holding).holding
        assert (holding.machines[PC].heartbeat_at, holding.license.checked_in_at) == (NOW, NOW)
        assert (holding.machines[PC].last_seen_at, holding.license.last_seen_at) == (NOW, NOW)


def test_a_ping_is_a_fact_though_it_was_denied_but_a_banned_license_does_not_check_in() -> None:
    holding = _holding(_machine())
    pinged = merge(replace(_past(Act.PING, NOW), valid=False, code=Code.OVERDUE), holding).holding
    assert pinged.machines[PC].heartbeat_at == NOW
    banned = replace(_past(Act.CHECK_IN, NOW, None), valid=False, code=Code.BANNED)
    assert merge(banned, holding).holding is holding


def test_a_ping_revives_a_culled_machine_and_no_other() -> None:
    culled = _holding(_machine(active=False, culled=True), seats=0)
    revived = merge(_past(Act.PING, NOW), culled).holding
    machine = revived.machines[PC]
    assert (revived.seats, machine.active, machine.culled, machine.heartbeat_at) == (1, True, False, NOW)
    assert machine.seat_at == NOW - 100
    left = _holding(_machine(active=False), seats=0)
    assert merge(_past(Act.PING, NOW), left).holding.machines[PC].active is False
    unknown = merge(_past(Act.PING, NOW), _holding()).holding
    assert (unknown.seats, unknown.arrivals, unknown.machines[PC].active) == (0, 0, False)


def test_a_machine_revived_where_its_seat_is_taken_is_one_too_many() -> None:
    holding = _holding(_machine(active=False, culled=True), _machine(LAPTOP))
    merged = merge(_past(Act.PING, NOW), holding)
    assert (merged.holding.seats, merged.holding.excess, merged.conflicts) == (2, 1, ("seats",))


def test_a_culled_machine_that_was_deactivated_is_not_revived() -> None:
    holding = _holding(_machine(active=False, culled=True), seats=0)
    gone = merge(_past(Act.DEACTIVATE, NOW), holding).holding
    assert merge(_past(Act.PING, NOW - 1), gone).holding.seats == 0


@pytest.mark.parametrize(("known", "after"), [(None, NOW + 5), (NOW, NOW + 5), (NOW + 9, NOW + 9)])
def test_an_expiry_that_has_started_is_never_shortened(known: float | None, after: float) -> None:
    past = replace(_past(Act.VALIDATE, NOW), started=NOW + 5)
    assert merge(past, _holding(expires_at=known)).holding.license.expires_at == after


def test_a_check_leaves_its_trace_and_never_turns_a_clock_back() -> None:
    holding = _holding(_machine(last_seen_at=NOW + 1), last_seen_at=NOW + 1)
    assert merge(_past(Act.VALIDATE, NOW), holding).holding is holding
    seen = merge(_past(Act.VALIDATE, NOW + 2), holding).holding
    assert (seen.machines[PC].last_seen_at, seen.license.last_seen_at) == (NOW + 2, NOW + 2)


# -- the order of the queues ------------------------------------------------------------------------------------------

_ACTS = (Act.VALIDATE, Act.ACTIVATE, Act.DEACTIVATE, Act.PING, Act.CHECK_IN, Act.USAGE)
_pasts = st.builds(
    _past, st.sampled_from(_ACTS), st.integers(0, 40).map(lambda s: NOW + s), st.sampled_from([PC, LAPTOP])
)


@given(st.lists(_pasts, max_size=6, unique_by=lambda past: past.at), st.lists(_pasts, max_size=6))
def test_two_queues_come_to_the_same_whichever_is_replayed_first(one: list[Past], two: list[Past]) -> None:
    taken = {past.at for past in one}
    two = list({past.at: past for past in two if past.at not in taken}.values())
    queues = [sorted(queue, key=lambda past: past.at) for queue in (one, two)]
    ends = []
    for order in (queues, queues[::-1]):
        holding = _holding(_machine(), _machine(LAPTOP, active=False), max_machines=None)
        for past in itertools.chain(*order):
            holding = merge(past, holding).holding
        ends.append(holding)
    seats = [{name: (m.active, m.seat_at, m.last_seen_at) for name, m in end.machines.items()} for end in ends]
    assert seats[0] == seats[1]
    assert ends[0].license == ends[1].license
    assert ends[0].seats == ends[1].seats == sum(machine.active for machine in ends[0].machines.values())
