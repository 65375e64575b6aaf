"""A strict verifier of verdicts and leases, written to be followed step by step in other languages.

The steps, in this order; the first that fails names the reason, and `tests/vectors` holds a case for each:

1. three parts, each strict base64url                            truncated, malformed, base64
2. the header: `alg`, no `crit`, `typ`, a `kid` that is pinned   header, duplicate_member, alg, crit, typ, kid
3. 64 bytes that sign the first two parts                        signature_length, signature
4. the claims: all there, each of its type, whole numbers        claims, duplicate_member, number, times
5. made by us for this very call                                 iss, aud, act, nonce, rid, rh, kh, fp
6. the clock, where it counts                                    clock_tampered, not_yet_valid, expired
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from api.signing.base64url import b64url_decode
from api.signing.keys import SigningKeyError, load_public_jwk
from api.signing.tokens import ISSUER, LEASE_TYP, VERDICT_TYP, LeaseClaims, VerdictClaims, body_claim, key_claim

#: Seconds a customer's clock may be behind before it counts.
CLOCK_LEEWAY_S = 300

_MAX_CHARACTERS = 65_536
_MAX_INTEGER = 2**53 - 1
_SIGNATURE_BYTES = 64
_NUMBERS = frozenset({"iat", "nbf", "exp", "lic_exp", "grace_until", "as_of", "uses", "max_uses", "epoch"})
_ECDSA = ec.ECDSA(hashes.SHA256())

Claims = TypeVar("Claims", VerdictClaims, LeaseClaims)


class Reason(StrEnum):
    """Why a token was refused. The order of the members is the order in which the causes are looked for."""

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    BASE64 = "base64"
    HEADER = "header"
    DUPLICATE_MEMBER = "duplicate_member"
    ALG = "alg"
    CRIT = "crit"
    TYP = "typ"
    KID = "kid"
    SIGNATURE_LENGTH = "signature_length"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    NUMBER = "number"
    TIMES = "times"
    ISS = "iss"
    AUD = "aud"
    ACT = "act"
    NONCE = "nonce"
    RID = "rid"
    RH = "rh"
    KH = "kh"
    FP = "fp"
    CLOCK_TAMPERED = "clock_tampered"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"


class TokenInvalid(Exception):
    """A token that decides nothing. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the token is refused: {reason}")
        self.reason = reason


class Verifier:
    """Verifies with pinned public keys: a JWKS as `jwks()` makes it. Never takes a key from a token.

    Raises `SigningKeyError` for a key set that is empty, faulty or names one kid twice.
    """

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._keys = _pinned(jwks)

    def verify_verdict(
        self,
        token: str,
        *,
        act: str,
        nonce: str,
        request_id: str | None,
        body: bytes,
        key: str,
        fingerprint: str | None,
        product: str,
        now: int | None = None,
    ) -> VerdictClaims:
        """The claims of an answer to exactly this call. Raises `TokenInvalid`.

        `request_id`: the `X-Request-Id` that was sent, None where none was; `body`: the raw bytes that were sent. A
        token beside the verdict is its own only where `token_claim` of it is the claim `th`.

        Freshness is the nonce. `now` (Unix seconds) is for callers whose own clock can be trusted; clients of
        customers leave it out, and then the token's times are held against no clock.
        """
        claims = self.claims(token, VERDICT_TYP, VerdictClaims)
        _require(Reason.TIMES, claims.iat < claims.exp)
        _require(Reason.ISS, claims.iss == ISSUER)
        _require(Reason.AUD, claims.aud == product)
        _require(Reason.ACT, claims.act == act)
        _require(Reason.NONCE, claims.nonce == nonce)
        _require(Reason.RID, claims.rid == request_id)
        _require(Reason.RH, claims.rh == body_claim(body))
        _require(Reason.KH, claims.kh == key_claim(key))
        _require(Reason.FP, claims.fp == fingerprint)
        if now is not None:
            _require(Reason.NOT_YET_VALID, claims.iat <= now + CLOCK_LEEWAY_S)
            _require(Reason.EXPIRED, now < claims.exp)
        return claims

    def verify_lease(
        self,
        token: str,
        *,
        key: str,
        fingerprint: str,
        product: str,
        now: int,
        floor: int | None = None,
        leeway: int = CLOCK_LEEWAY_S,
    ) -> LeaseClaims:
        """The claims of an offline token that lets this key run on this machine at `now`. Raises `TokenInvalid`.

        `floor`: the highest signed time this client has seen; a clock more than `leeway` seconds below it was set
        back. The leeway is for clocks that are behind: the end is `exp` to the second.
        """
        claims = self.claims(token, LEASE_TYP, LeaseClaims)
        _require(Reason.TIMES, max(claims.iat, claims.nbf) < claims.exp)
        _require(Reason.ISS, claims.iss == ISSUER)
        _require(Reason.AUD, claims.aud == product)
        _require(Reason.KH, claims.kh == key_claim(key))
        _require(Reason.FP, claims.fp == fingerprint)
        _require(Reason.CLOCK_TAMPERED, floor is None or floor <= now + leeway)
        _require(Reason.NOT_YET_VALID, claims.nbf <= now + leeway)
        _require(Reason.EXPIRED, now < claims.exp)
        return claims

    def claims(self, token: str, typ: str, kind: type[Claims]) -> Claims:
        """The claims of a token of this type that a pinned key signed, bound to nothing. Raises `TokenInvalid`.

        Enough for who asks what a token says; a client calls `verify_verdict` and `verify_lease`.
        """
        parts = _parts(token)
        header, payload, signature = (_decoded(part) for part in parts)
        public = self._key(_object(header, Reason.HEADER), typ)
        _check_signature(public, signature, f"{parts[0]}.{parts[1]}".encode("ascii"))
        return _typed(_object(payload, Reason.CLAIMS), kind)

    def _key(self, header: Mapping[str, Any], typ: str) -> ec.EllipticCurvePublicKey:
        """The pinned key that the header names. Other members are ignored, a key among them above all."""
        _require(Reason.ALG, header.get("alg") == "ES256")
        _require(Reason.CRIT, "crit" not in header)
        _require(Reason.TYP, header.get("typ") == typ)
        kid = header.get("kid")
        public = self._keys.get(kid) if isinstance(kid, str) else None
        if public is None:
            raise TokenInvalid(Reason.KID)
        return public


def _require(reason: Reason, holds: bool) -> None:
    if not holds:
        raise TokenInvalid(reason)


def _pinned(jwks: Mapping[str, Any]) -> dict[str, ec.EllipticCurvePublicKey]:
    listed = jwks.get("keys")
    if not isinstance(listed, Sequence) or not listed:
        raise SigningKeyError("the key set holds no keys")
    pinned: dict[str, ec.EllipticCurvePublicKey] = {}
    for number, jwk in enumerate(listed, start=1):
        try:
            public = load_public_jwk(jwk if isinstance(jwk, Mapping) else {})
        except SigningKeyError as error:
            raise SigningKeyError(f"key {number} of the set {error}") from None
        if jwk["kid"] in pinned:
            raise SigningKeyError(f"key {number} of the set has the kid of another one")
        pinned[jwk["kid"]] = public
    return pinned


def _parts(token: str) -> list[str]:
    parts = token.split(".")
    _require(Reason.MALFORMED, len(token) <= _MAX_CHARACTERS and len(parts) <= 3)
    _require(Reason.TRUNCATED, len(parts) == 3)
    return parts


def _decoded(part: str) -> bytes:
    try:
        return b64url_decode(part)
    except ValueError:
        raise TokenInvalid(Reason.BASE64) from None


def _object(raw: bytes, otherwise: Reason) -> dict[str, Any]:
    """The JSON object in `raw`; no member twice at any depth. `otherwise`: the reason when it is not one."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_members, parse_int=_integer, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise TokenInvalid(otherwise) from None
    if not isinstance(value, dict):
        raise TokenInvalid(otherwise)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    _require(Reason.DUPLICATE_MEMBER, len(members) == len(pairs))
    return members


def _integer(digits: str) -> int | float:
    """An integer; one with more digits than any time has is infinite, so that it costs nothing and fits nowhere."""
    return int(digits) if len(digits) <= len(str(-_MAX_INTEGER)) else math.inf


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_signature(public: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> None:
    _require(Reason.SIGNATURE_LENGTH, len(signature) == _SIGNATURE_BYTES)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public.verify(encode_dss_signature(r, s), signed, _ECDSA)
    except InvalidSignature:
        raise TokenInvalid(Reason.SIGNATURE) from None


def _typed(members: dict[str, Any], kind: type[Claims]) -> Claims:
    """The claims as their struct: each of its type, none null. Members that are not known are ignored."""
    names = kind.__struct_fields__
    _require(Reason.CLAIMS, all(members.get(name, "left out") is not None for name in names))
    for name in _NUMBERS.intersection(names) & members.keys():
        value = members[name]
        _require(Reason.NUMBER, type(value) is int and abs(value) <= _MAX_INTEGER)
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError:
        raise TokenInvalid(Reason.CLAIMS) from None
