"""The tokens as they leave: the exact header and claims, a raw signature, and the bytes of the test vectors."""

from __future__ import annotations

import hashlib
import json

import pytest

from api.licensing import Act, Code
from api.signing import (
    VERDICT_LIFETIME_S,
    LeaseClaims,
    Signer,
    SigningKey,
    VerdictClaims,
    body_claim,
    key_claim,
    token_claim,
)
from api.signing.base64url import b64url, b64url_decode
from tests.vectors import cases

SIGNER = Signer(SigningKey.of(cases.CURRENT), deterministic=True)


def verdict(**changes: object) -> VerdictClaims:
    return VerdictClaims(**cases.verdict_claims(**{"ent": ("pro",), **changes}))


def lease(**changes: object) -> LeaseClaims:
    return LeaseClaims(**cases.lease_claims(**{"ent": ("pro",), **changes}))


def test_a_verdict_is_the_very_token_of_the_vectors() -> None:
    assert SIGNER.verdict(verdict()) == cases.verdict_token()


def test_a_lease_is_the_very_token_of_the_vectors() -> None:
    assert SIGNER.lease(lease()) == cases.lease_token()


@pytest.mark.parametrize("kind", ["verdict", "lease"])
def test_the_header_is_alg_kid_typ_and_nothing_else(kind: str) -> None:
    token = SIGNER.verdict(verdict()) if kind == "verdict" else SIGNER.lease(lease())
    header = json.loads(b64url_decode(token.split(".")[0]))
    assert header == {"alg": "ES256", "kid": SIGNER.kid, "typ": f"{kind}+jwt"}


def test_a_verdict_has_exactly_the_claims_of_the_contract() -> None:
    claims = json.loads(b64url_decode(SIGNER.verdict(verdict(th="t", max_uses=9)).split(".")[1]))
    named = (
        "iss iat exp jti act nonce rid rh sub kh fp aud th led code valid lic_exp ent uses max_uses node epoch as_of"
    )
    assert list(claims) == named.split()


def test_a_lease_has_exactly_the_claims_of_the_contract() -> None:
    claims = json.loads(b64url_decode(SIGNER.lease(lease()).split(".")[1]))
    named = "iss iat nbf exp jti sub kh fp aud ent lic_exp grace_until led epoch"
    assert list(claims) == named.split()


def test_a_claim_without_a_value_is_left_out() -> None:
    without = verdict(**dict.fromkeys(("rid", "sub", "fp", "aud", "lic_exp", "uses")))
    claims = json.loads(b64url_decode(SIGNER.verdict(without).split(".")[1]))
    assert list(claims) == [
        "iss",
        "iat",
        "exp",
        "jti",
        "act",
        "nonce",
        "rh",
        "kh",
        "led",
        "code",
        "valid",
        "ent",
        "node",
        "epoch",
        "as_of",
    ]
    perpetual = json.loads(b64url_decode(SIGNER.lease(lease(lic_exp=None, grace_until=None)).split(".")[1]))
    assert list(perpetual) == ["iss", "iat", "nbf", "exp", "jti", "sub", "kh", "fp", "aud", "ent", "led", "epoch"]


def test_values_that_are_zero_or_empty_are_no_claims_without_a_value() -> None:
    claims = json.loads(b64url_decode(SIGNER.verdict(verdict(uses=0, ent=(), valid=False)).split(".")[1]))
    assert (claims["uses"], claims["ent"], claims["valid"]) == (0, [], False)


def test_codes_and_acts_are_written_as_their_text() -> None:
    claims = verdict(code=Code.NO_MACHINE, act=Act.CHECK_IN)
    written = json.loads(b64url_decode(SIGNER.verdict(claims).split(".")[1]))
    assert (written["code"], written["act"]) == ("NO_MACHINE", "check-in")


def test_a_verdict_lives_for_five_minutes() -> None:
    assert VERDICT_LIFETIME_S == 300


def test_signatures_are_64_raw_bytes_even_with_leading_zeros() -> None:
    signatures = [b64url_decode(SIGNER.verdict(verdict(jti=str(number))).split(".")[2]) for number in range(1_500)]
    assert {len(signature) for signature in signatures} == {64}
    assert any(signature[0] == 0 for signature in signatures), "no r with a leading zero was tried"
    assert any(signature[32] == 0 for signature in signatures), "no s with a leading zero was tried"


def test_signing_takes_a_fresh_nonce_unless_told_otherwise() -> None:
    signer = Signer(SigningKey.of(cases.CURRENT))
    assert signer.verdict(verdict()) != signer.verdict(verdict())


def test_a_key_is_hashed_as_it_was_sent() -> None:
    assert key_claim("ABC") == b64url(hashlib.sha256(b"ABC").digest())
    assert len({key_claim("abc"), key_claim("ABC"), key_claim("ABC ")}) == 3


def test_a_key_outside_ascii_is_hashed_as_utf8() -> None:
    assert key_claim("ç") == b64url(hashlib.sha256(b"\xc3\xa7").digest())


def test_a_token_is_hashed_as_it_is_sent() -> None:
    assert token_claim("a.b.c") == b64url(hashlib.sha256(b"a.b.c").digest())


def test_a_body_is_hashed_byte_for_byte() -> None:
    assert body_claim(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    assert body_claim(b"{}") != body_claim(b"{} ")
