"""Every cause gives its code, every pair of causes gives the earlier one's, for every act."""

from __future__ import annotations

from itertools import combinations

import pytest

from api.licensing import Act, Code
from tests.unit.licensing.scenes import CAUSES, JUDGED_BY, Cause, causes_of, flawless

#: How many pairs can be true at once; a pair that is silently dropped is a rule that is not tested.
EXPECTED_PAIRS = {
    Act.VALIDATE: 131,
    Act.CHECKOUT: 131,
    Act.PING: 107,
    Act.ACTIVATE: 73,
    Act.CHECK_IN: 25,
    Act.USAGE: 19,
    Act.DEACTIVATE: 0,
}

SINGLES = [(act, cause) for act in Act for cause in causes_of(act)]
PAIRS = [
    (act, earlier, later)
    for act in Act
    for earlier, later in combinations(causes_of(act), 2)
    if not earlier.aspects & later.aspects
]
#: An activation without a fingerprint cannot be; to a check a newcomer without a seat is simply no machine of ours.
_ELSEWHERE = {
    (Act.ACTIVATE, "no fingerprint"),
    (Act.VALIDATE, "no seat left"),
    (Act.CHECKOUT, "no seat left"),
    (Act.PING, "no seat left"),
}
UNJUDGED = [
    (act, cause)
    for act in Act
    for cause in CAUSES
    if cause.name not in JUDGED_BY[act] and (act, cause.name) not in _ELSEWHERE
]


def _name(value: Act | Cause) -> str:
    return value.value if isinstance(value, Act) else value.name


@pytest.mark.parametrize("act", Act, ids=_name)
def test_nothing_speaks_against_the_flawless_call(act: Act) -> None:
    verdict = flawless().decide(act)
    assert (verdict.code, verdict.valid) == (Code.VALID, True)


@pytest.mark.parametrize(("act", "cause"), SINGLES, ids=_name)
def test_a_cause_alone_gives_its_code(act: Act, cause: Cause) -> None:
    verdict = cause.spoil(flawless()).decide(act)
    assert (verdict.code, verdict.valid) == (cause.code, cause.valid)
    assert verdict.detail


@pytest.mark.parametrize(("act", "earlier", "later"), PAIRS, ids=_name)
def test_of_two_causes_the_earlier_in_the_order_wins(act: Act, earlier: Cause, later: Cause) -> None:
    for first, second in ((earlier, later), (later, earlier)):
        verdict = second.spoil(first.spoil(flawless())).decide(act)
        assert (verdict.code, verdict.valid) == (earlier.code, earlier.valid)


@pytest.mark.parametrize(("act", "cause"), UNJUDGED, ids=_name)
def test_what_an_act_is_not_judged_by_does_not_matter_to_it(act: Act, cause: Cause) -> None:
    verdict = cause.spoil(flawless()).decide(act)
    assert (verdict.code, verdict.valid) == (Code.VALID, True)


def test_all_compatible_pairs_are_there() -> None:
    counted = {act: sum(1 for pair in PAIRS if pair[0] is act) for act in Act}
    assert counted == EXPECTED_PAIRS


def test_every_code_but_valid_has_a_cause_and_the_codes_stand_in_the_contracts_order() -> None:
    codes = list(dict.fromkeys(cause.code for cause in CAUSES))
    assert [*codes, Code.VALID] == list(Code)
