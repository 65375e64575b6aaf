"""The judge of garbled connections is judged: what is wrong with their answers is found."""

from __future__ import annotations

import json

import pytest

from tests.fuzz.http_answers import Incomplete, Response, answers, wrong
from tests.fuzz.http_calls import LAST, Known
from tests.fuzz.http_cases import Case, Step, case

_KNOWN = Known("api-key", "secret", "KEY-OF-A-CUSTOMER", "KEY-OF-NOBODY")
_BEFORE, _BEHIND = Step(b"...", "check", "nonce-1"), Step(b"...", "check", "nonce-2")
_LAST = Step(LAST, "last")


def granted(nonce: str | None) -> Response:
    return Response(200, json.dumps({"code": "VALID", "nonce": nonce}).encode(), False)


_ALIVE = Response(200, b"{}", False)
_REFUSED = Response(400, b"{}", False)
_REFUSED_AT_ONCE = Response(400, b"", False)


@pytest.mark.parametrize("got", [[_REFUSED], [_REFUSED_AT_ONCE], []], ids=["refused", "at once", "ended"])
def test_behind_a_request_whose_end_is_in_doubt_nothing_may_be_answered(got: list[Response]) -> None:
    made = Case(1, (_BEFORE, Step(b"...", "length", ends=True), _BEHIND, _LAST), 1)
    assert wrong(made, [granted("nonce-1"), *got]) is None
    assert wrong(made, [granted("nonce-1"), *got, _REFUSED, _ALIVE]) is not None
    assert wrong(made, got) is not None


def test_beside_an_odd_request_that_is_whole_checks_are_answered_as_ever() -> None:
    made = Case(1, (_BEFORE, Step(b"...", "body"), _BEHIND, _LAST), 1)
    well = [granted("nonce-1"), _REFUSED, granted("nonce-2"), _ALIVE]
    assert wrong(made, well) is None
    assert wrong(made, [*well[:1], _REFUSED_AT_ONCE]) is None
    assert wrong(made, [*well[:1], _REFUSED._replace(ends=True)]) is None
    assert wrong(made, well[:1]) == "no answer"
    for got in ([*well[:2]], [*well, _ALIVE], [well[0], *well[2:], _ALIVE], [well[2], *well[1:]]):
        assert wrong(made, got) is not None


@pytest.mark.parametrize("status", [500, 502, 301, 199])
def test_a_status_that_is_not_documented_is_found_wherever_it_is(status: int) -> None:
    made = Case(1, (_BEFORE, Step(b"...", "noise", wild=True), _LAST), 1)
    assert wrong(made, [granted("nonce-1"), Response(status, b"", True)]) == f"status {status}"


def test_one_odd_request_is_not_answered_by_a_verdict_on_another() -> None:
    made = Case(1, (Step(b"...", "odd chunks", "nonce-0"), _LAST), 0)
    assert wrong(made, [granted("nonce-0"), _ALIVE]) is None
    assert wrong(made, [granted("nonce-1"), _ALIVE]) is not None


def test_answers_are_read_however_their_ends_are_said() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    two = b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    two += b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    got = answers(b"HTTP/1.1 100 Continue\r\n\r\n" + one + two, ())
    assert got == [Response(200, b"{}", False), Response(400, b"{}", True)]
    for received in (one[:-1], one[:20], two[:-3], b"garbage", one + b"x"):
        with pytest.raises(Incomplete):
            answers(received, ())


def test_a_case_follows_from_its_seed_and_its_number() -> None:
    made = [[step.name for step in case(7, number, _KNOWN).steps] for number in range(200)]
    assert made == [[step.name for step in case(7, number, _KNOWN).steps] for number in range(200)]
    assert made != [[step.name for step in case(8, number, _KNOWN).steps] for number in range(200)]
    assert all(len(set(names)) >= 2 for names in made)
