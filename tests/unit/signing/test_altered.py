"""No altered token passes: every single bit, and characters put in, taken out and exchanged anywhere."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from api.signing import TokenInvalid, Verifier
from tests.vectors import cases, jws

VERIFIER = Verifier({"keys": [jws.jwk_of(cases.CURRENT), jws.jwk_of(cases.SECOND)]})
GOOD = {"verdict": cases.verdict_token(), "lease": cases.lease_token()}
CALL = {**cases.call(), "body": cases.call()["body"].encode()}

kinds = pytest.mark.parametrize("kind", ["verdict", "lease"])
letters = st.one_of(st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \n\0"), st.characters())


def verify(kind: str, token: str) -> None:
    if kind == "verdict":
        VERIFIER.verify_verdict(token, **CALL)
    else:
        VERIFIER.verify_lease(token, **cases.offline())


def assert_refused(kind: str, token: str) -> None:
    with pytest.raises(TokenInvalid):
        verify(kind, token)


@kinds
def test_the_token_itself_passes(kind: str) -> None:
    verify(kind, GOOD[kind])


@kinds
@pytest.mark.parametrize("bit", range(8))
def test_every_single_flipped_bit_is_refused(kind: str, bit: int) -> None:
    good = GOOD[kind].encode()
    for place in range(len(good)):
        altered = bytes([*good[:place], good[place] ^ 1 << bit, *good[place + 1 :]])
        assert_refused(kind, altered.decode("latin-1"))


@kinds
@settings(deadline=None)
@given(data=st.data())
def test_an_exchanged_character_is_refused(kind: str, data: st.DataObject) -> None:
    good = GOOD[kind]
    place = data.draw(st.integers(0, len(good) - 1))
    letter = data.draw(letters)
    assume(letter != good[place])
    assert_refused(kind, good[:place] + letter + good[place + 1 :])


@kinds
@settings(deadline=None)
@given(data=st.data())
def test_a_character_put_in_is_refused(kind: str, data: st.DataObject) -> None:
    good = GOOD[kind]
    place = data.draw(st.integers(0, len(good)))
    assert_refused(kind, good[:place] + data.draw(letters) + good[place:])


@kinds
@settings(deadline=None)
@given(data=st.data())
def test_a_stretch_taken_out_is_refused(kind: str, data: st.DataObject) -> None:
    good = GOOD[kind]
    begin = data.draw(st.integers(0, len(good) - 1))
    assert_refused(kind, good[:begin] + good[data.draw(st.integers(begin + 1, len(good))) :])


@kinds
@settings(deadline=None)
@given(token=st.text(max_size=200))
def test_any_text_at_all_is_refused_by_the_same_error(kind: str, token: str) -> None:
    assert_refused(kind, token)


@kinds
@settings(deadline=None)
@given(header=st.binary(max_size=60), claims=st.binary(max_size=60))
def test_any_signed_bytes_at_all_are_refused_by_the_same_error(kind: str, header: bytes, claims: bytes) -> None:
    assert_refused(kind, jws.compact(header, claims, cases.CURRENT))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@kinds
@settings(deadline=None)
@given(data=st.data())
def test_a_claim_of_any_other_value_is_refused_or_taken_as_what_it_is(kind: str, data: st.DataObject) -> None:
    claims = cases.verdict_claims() if kind == "verdict" else cases.lease_claims()
    name = data.draw(st.sampled_from(["iss", "aud", "kh", "fp"]))
    value = data.draw(json_values)
    assume(value != claims[name])
    make = cases.verdict_token if kind == "verdict" else cases.lease_token
    assert_refused(kind, make(json.dumps({**claims, name: value}).encode()))


@kinds
@settings(deadline=None)
@given(header=st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit"]), json_values, min_size=1))
def test_a_header_of_any_other_value_is_refused(kind: str, header: dict[str, object]) -> None:
    right = jws.header_of(cases.CURRENT, f"{kind}+jwt")
    assume(any(name not in right or right[name] != value for name, value in header.items()))
    make = cases.verdict_claims if kind == "verdict" else cases.lease_claims
    written = json.dumps({**right, **header}).encode()
    assert_refused(kind, jws.compact(written, make(), cases.CURRENT))
