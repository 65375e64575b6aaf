"""The verifier: a good token passes, and each way in which one can be bad is refused for its own reason."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from api.signing import (
    LeaseClaims,
    Reason,
    Signer,
    SigningKey,
    SigningKeyError,
    TokenInvalid,
    VerdictClaims,
    Verifier,
    generate,
    jwks,
)
from api.signing.base64url import b64url_decode
from tests.vectors import cases, jws
from tests.vectors.cases import NOW

KEY, SECOND = SigningKey.of(cases.CURRENT), SigningKey.of(cases.SECOND)
SIGNER = Signer(KEY)
VERIFIER = Verifier(jwks(KEY.public_jwk, [SECOND.public_jwk]))


def verdict(signer: Signer = SIGNER, **changes: Any) -> str:
    return signer.verdict(VerdictClaims(**cases.verdict_claims(**{"ent": ("pro",), **changes})))


def lease(signer: Signer = SIGNER, **changes: Any) -> str:
    return signer.lease(LeaseClaims(**cases.lease_claims(**{"ent": ("pro",), **changes})))


def check_verdict(token: str, **changes: Any) -> VerdictClaims:
    given = cases.call(**changes)
    body = given.pop("body").encode()
    return VERIFIER.verify_verdict(token, body=body, **given)


def check_lease(token: str, **changes: Any) -> LeaseClaims:
    return VERIFIER.verify_lease(token, **cases.offline(**changes))


def verdict_refusal(token: str, **changes: Any) -> Reason:
    with pytest.raises(TokenInvalid) as caught:
        check_verdict(token, **changes)
    return caught.value.reason


def lease_refusal(token: str, **changes: Any) -> Reason:
    with pytest.raises(TokenInvalid) as caught:
        check_lease(token, **changes)
    return caught.value.reason


def test_a_good_verdict_gives_its_claims() -> None:
    claims = check_verdict(verdict(code="NO_MACHINE", valid=False))
    assert claims == VerdictClaims(**cases.verdict_claims(ent=("pro",), code="NO_MACHINE", valid=False))


def test_a_good_lease_gives_its_claims() -> None:
    assert check_lease(lease()) == LeaseClaims(**cases.lease_claims(ent=("pro",)))


def test_any_pinned_key_will_do() -> None:
    assert check_verdict(verdict(Signer(SECOND))).valid


# Forged


def test_a_verdict_of_a_key_that_is_not_pinned_is_refused() -> None:
    assert verdict_refusal(verdict(Signer(generate()))) is Reason.KID


def test_a_stranger_who_borrows_a_pinned_kid_is_refused() -> None:
    stranger = SigningKey(kid=KEY.kid, private=generate().private)
    assert verdict_refusal(verdict(Signer(stranger))) is Reason.SIGNATURE


def test_altered_claims_under_the_old_signature_are_refused() -> None:
    denial, good = verdict(valid=False, code="SUSPENDED"), verdict()
    head, _, signature = denial.split(".")
    assert verdict_refusal(f"{head}.{good.split('.')[1]}.{signature}") is Reason.SIGNATURE


def test_an_altered_bit_of_the_signature_is_refused() -> None:
    token = verdict()
    signature = bytearray(b64url_decode(token.split(".")[2]))
    signature[40] ^= 4
    assert verdict_refusal(jws.resigned(token, bytes(signature))) is Reason.SIGNATURE


def test_a_signature_of_zeros_is_refused() -> None:
    assert verdict_refusal(jws.resigned(verdict(), bytes(64))) is Reason.SIGNATURE


def test_a_lease_prolonged_by_its_owner_is_refused() -> None:
    head, _, signature = lease().split(".")
    payload = lease(exp=NOW + 10**9).split(".")[1]
    assert lease_refusal(f"{head}.{payload}.{signature}") is Reason.SIGNATURE


def test_alg_none_is_refused() -> None:
    token = cases.verdict_token(header={"alg": "none"})
    assert verdict_refusal(jws.resigned(token, b"")) is Reason.ALG


@pytest.mark.parametrize("secret", [KEY.kid.encode(), repr(KEY.public_jwk).encode()])
def test_hs256_with_what_is_public_as_the_secret_is_refused(secret: bytes) -> None:
    token = cases.verdict_token(header={"alg": "HS256"})
    forged = jws.resigned(token, hmac.digest(secret, token.rpartition(".")[0].encode(), hashlib.sha256))
    assert verdict_refusal(forged) is Reason.ALG


def test_a_crit_header_is_refused() -> None:
    assert verdict_refusal(cases.verdict_token(header={"crit": ["b64"], "b64": False})) is Reason.CRIT


# Swapped


def test_another_keys_verdict_is_refused() -> None:
    assert verdict_refusal(verdict(), key=cases.OTHER_KEY) is Reason.KH


def test_another_machines_verdict_is_refused() -> None:
    assert verdict_refusal(verdict(), fingerprint="another machine") is Reason.FP


def test_another_calls_verdict_is_refused() -> None:
    assert verdict_refusal(verdict(), act="activate") is Reason.ACT


def test_a_replayed_verdict_is_refused() -> None:
    assert verdict_refusal(verdict(), nonce="n0nce-BBBBBBBBBBBBBBBB_02") is Reason.NONCE


def test_a_verdict_on_another_body_is_refused() -> None:
    assert verdict_refusal(verdict(), body='{"increment":1}') is Reason.RH


def test_another_products_verdict_is_refused() -> None:
    assert verdict_refusal(verdict(), product="paint-pro") is Reason.AUD


def test_another_issuers_verdict_is_refused() -> None:
    assert verdict_refusal(verdict(iss="somebody")) is Reason.ISS


def test_a_lease_is_no_verdict() -> None:
    assert verdict_refusal(lease()) is Reason.TYP


def test_a_verdict_is_no_lease() -> None:
    assert lease_refusal(verdict()) is Reason.TYP


def test_another_keys_lease_is_refused() -> None:
    assert lease_refusal(lease(), key=cases.OTHER_KEY) is Reason.KH


def test_a_lease_copied_to_another_machine_is_refused() -> None:
    assert lease_refusal(lease(), fingerprint="another machine") is Reason.FP


def test_another_products_lease_is_refused() -> None:
    assert lease_refusal(lease(), product="paint-pro") is Reason.AUD


# Expired, and other times


def test_a_verdict_is_held_against_no_clock_by_itself() -> None:
    assert check_verdict(verdict(iat=1, exp=301)).iat == 1


def test_a_caller_whose_clock_can_be_trusted_may_refuse_an_expired_verdict() -> None:
    assert check_verdict(verdict(), now=NOW + 299).valid
    assert verdict_refusal(verdict(), now=NOW + 300) is Reason.EXPIRED


def test_a_caller_whose_clock_can_be_trusted_may_refuse_a_verdict_from_the_future() -> None:
    assert check_verdict(verdict(), now=NOW - 300).valid
    assert verdict_refusal(verdict(), now=NOW - 301) is Reason.NOT_YET_VALID


def test_a_verdict_that_ends_when_it_begins_is_refused() -> None:
    assert verdict_refusal(verdict(exp=NOW)) is Reason.TIMES


def test_a_lease_ends_to_the_second() -> None:
    assert check_lease(lease(), now=NOW + 604_799).exp == NOW + 604_800
    assert lease_refusal(lease(), now=NOW + 604_800) is Reason.EXPIRED


def test_a_lease_before_its_time_is_refused_beyond_the_leeway() -> None:
    assert check_lease(lease(), now=NOW - 300).nbf == NOW
    assert lease_refusal(lease(), now=NOW - 301) is Reason.NOT_YET_VALID


def test_the_leeway_can_be_taken_away() -> None:
    assert check_lease(lease(), now=NOW, leeway=0).nbf == NOW
    assert lease_refusal(lease(), now=NOW - 1, leeway=0) is Reason.NOT_YET_VALID


def test_a_clock_set_back_is_refused() -> None:
    assert check_lease(lease(), now=NOW + 700, floor=NOW + 1_000).nbf == NOW
    assert lease_refusal(lease(), now=NOW + 699, floor=NOW + 1_000) is Reason.CLOCK_TAMPERED


# Form


@pytest.mark.parametrize("token", ["", ".", "a.b", "a"])
def test_a_token_with_fewer_than_three_parts_is_truncated(token: str) -> None:
    assert verdict_refusal(token) is Reason.TRUNCATED


@pytest.mark.parametrize("token", [verdict() + ".AAAA", verdict() + "A" * 65_536])
def test_a_token_with_too_many_parts_or_characters_is_malformed(token: str) -> None:
    assert verdict_refusal(token) is Reason.MALFORMED


@pytest.mark.parametrize("length", range(86))
def test_a_token_cut_off_anywhere_in_its_signature_is_refused(length: int) -> None:
    head, payload, signature = verdict().split(".")
    assert verdict_refusal(f"{head}.{payload}.{signature[:length]}") in (Reason.BASE64, Reason.SIGNATURE_LENGTH)


@pytest.mark.parametrize("deep", [b"[" * 20_000, b'{"a":' * 4_000])
def test_endless_nesting_is_refused_and_nothing_else(deep: bytes) -> None:
    assert verdict_refusal(jws.compact(deep, b"", cases.CURRENT)) is Reason.HEADER


def test_a_number_of_forty_thousand_digits_is_refused_like_any_that_is_too_large() -> None:
    token = cases.verdict_token(jws.dumps(cases.verdict_claims()).replace(b'"uses":0', b'"uses":' + b"9" * 40_000))
    assert verdict_refusal(token) is Reason.NUMBER


def test_the_error_names_the_reason_and_shows_nothing_of_the_token() -> None:
    with pytest.raises(TokenInvalid, match=r"^the token is refused: typ$"):
        check_verdict(lease())


# Pinning


@pytest.mark.parametrize(
    ("pinned", "message"),
    [
        ({}, "holds no keys"),
        ({"keys": []}, "holds no keys"),
        ({"keys": 7}, "holds no keys"),
        ({"keys": "abc"}, "key 1 of the set is not an EC key"),
        ({"keys": [KEY.public_jwk, {}]}, "key 2 of the set is not an EC key"),
        ({"keys": [KEY.public_jwk, KEY.public_jwk]}, "key 2 of the set has the kid of another one"),
    ],
)
def test_a_faulty_key_set_is_refused_when_it_is_pinned(pinned: dict[str, Any], message: str) -> None:
    with pytest.raises(SigningKeyError, match=message):
        Verifier(pinned)
