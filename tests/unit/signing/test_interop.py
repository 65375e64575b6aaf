"""An independent JWS library (joserfc) verifies our tokens, and we verify the tokens that it makes."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws as joserfc_jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey, KeySet
from joserfc.jwk import import_key as import_jwk

from api.signing import LeaseClaims, Signer, SigningKey, VerdictClaims, Verifier, generate, jwks, parse_signing_keys
from tests.vectors import cases, jws

OWN, SECOND = SigningKey.of(cases.CURRENT), SigningKey.of(cases.SECOND)
KEY_SET = KeySet.import_key_set(json.loads(json.dumps(jwks(OWN.public_jwk, [SECOND.public_jwk]))))
CALL = {**cases.call(), "body": cases.call()["body"].encode()}


def verdict(**changes: object) -> VerdictClaims:
    return VerdictClaims(**cases.verdict_claims(**{"ent": ("pro",), **changes}))


def of_joserfc(private: ec.EllipticCurvePrivateKey, typ: str, claims: dict[str, object]) -> str:
    key = ECKey.import_key(jws.pem_of(private))
    return joserfc_jws.serialize_compact(jws.header_of(private, typ), json.dumps(claims), key, algorithms=["ES256"])


def test_it_verifies_our_verdicts_from_our_key_set() -> None:
    for signer in (Signer(OWN), Signer(SECOND)):
        for number in range(300):
            found = joserfc_jws.deserialize_compact(signer.verdict(verdict(jti=str(number))), KEY_SET, ["ES256"])
            assert json.loads(found.payload) == cases.verdict_claims(jti=str(number))


def test_it_verifies_our_leases_from_our_key_set() -> None:
    token = Signer(OWN).lease(LeaseClaims(**cases.lease_claims(ent=("pro",))))
    assert json.loads(joserfc_jws.deserialize_compact(token, KEY_SET, ["ES256"]).payload) == cases.lease_claims()


def test_it_refuses_what_another_key_signed() -> None:
    stranger = SigningKey(kid=OWN.kid, private=generate().private)
    with pytest.raises(BadSignatureError):
        joserfc_jws.deserialize_compact(Signer(stranger).verdict(verdict()), KEY_SET, ["ES256"])


def test_we_verify_the_verdicts_it_makes() -> None:
    verifier = Verifier(jwks(OWN.public_jwk, [SECOND.public_jwk]))
    for number in range(300):
        token = of_joserfc(cases.SECOND, "verdict+jwt", cases.verdict_claims(jti=str(number)))
        assert verifier.verify_verdict(token, **CALL).jti == str(number)


def test_we_verify_the_leases_it_makes() -> None:
    token = of_joserfc(cases.CURRENT, "lease+jwt", cases.lease_claims())
    assert Verifier(jwks(OWN.public_jwk, [])).verify_lease(token, **cases.offline()).fp == cases.FINGERPRINT


def test_a_pem_that_it_made_signs_here() -> None:
    (key,) = parse_signing_keys(ECKey.generate_key("P-256").as_pem(private=True).decode())
    public = import_jwk(dict(key.public_jwk), "EC")
    found = joserfc_jws.deserialize_compact(Signer(key).verdict(verdict()), public, ["ES256"])
    assert found.headers()["kid"] == key.kid
