"""The strict verifier of verdicts and leases, step by step as tests/vectors/README.md describes it.

1. three parts, each strict base64url                            truncated, malformed, base64
2. the header: `alg`, no `crit`, `typ`, a `kid` that is pinned   header, duplicate_member, alg, crit, typ, kid
3. 64 bytes that sign the first two parts                        signature_length, signature
4. the claims: all there, each of its type, whole numbers        claims, duplicate_member, number, times
5. made by us for this very call                                 iss, aud, act, nonce, rid, rh, kh, fp
6. the clock, where it counts                                    clock_tampered, not_yet_valid, expired
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from license_client import base64url
from license_client.claims import Claims, LeaseClaims, VerdictClaims, parse_object, typed
from license_client.errors import TokenInvalid
from license_client.keys import PublicKeys, pinned

ISSUER = "protecao"
VERDICT_TYP = "verdict+jwt"
LEASE_TYP = "lease+jwt"

#: Seconds by which a customer's clock may be behind before it counts.
CLOCK_LEEWAY_S = 300

_MAX_CHARACTERS = 65_536
_SIGNATURE_BYTES = 64
_ECDSA = ec.ECDSA(hashes.SHA256())


class Verifier:
    """Verifies with pinned public keys, and never takes a key from a token.

    Raises `ConfigurationError` for keys that are faulty or missing.
    """

    def __init__(self, public_keys: PublicKeys) -> None:
        self._keys = pinned(public_keys)

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
    ) -> VerdictClaims:
        """The claims of an answer to exactly this call; `body`: the bytes that were sent. Raises `TokenInvalid`.

        Its freshness is its nonce: its times are held against no clock.
        """
        claims = self._claims(token, VERDICT_TYP, VerdictClaims)
        _require("times", claims.iat < claims.exp)
        _require("iss", claims.iss == ISSUER)
        _require("aud", claims.aud == product or _is_of_no_product(claims, act))
        _require("act", claims.act == act)
        _require("nonce", claims.nonce == nonce)
        _require("rid", claims.rid == request_id)
        _require("rh", claims.rh == base64url.digest(body))
        _require("kh", claims.kh == base64url.digest(key.encode()))
        _require("fp", claims.fp == fingerprint)
        return claims

    def verify_lease(
        self, token: str, *, key: str, fingerprint: str, product: str, now: int, floor: int | None = None
    ) -> LeaseClaims:
        """The claims of an offline token that lets this key run on this machine at `now`. Raises `TokenInvalid`.

        `floor`: the highest signed time seen so far. The leeway is for clocks that are behind: the end is `exp` to the
        second.
        """
        claims = self.verify_given_lease(token, key=key, fingerprint=fingerprint, product=product)
        _require("clock_tampered", floor is None or floor <= now + CLOCK_LEEWAY_S)
        _require("not_yet_valid", claims.nbf <= now + CLOCK_LEEWAY_S)
        _require("expired", now < claims.exp)
        return claims

    def verify_given_lease(self, token: str, *, key: str, fingerprint: str, product: str) -> LeaseClaims:
        """Like `verify_lease`, at no time in particular: what is worth saving. Raises `TokenInvalid`."""
        claims = self._claims(token, LEASE_TYP, LeaseClaims)
        _require("times", max(claims.iat, claims.nbf) < claims.exp)
        _require("iss", claims.iss == ISSUER)
        _require("aud", claims.aud == product)
        _require("kh", claims.kh == base64url.digest(key.encode()))
        _require("fp", claims.fp == fingerprint)
        return claims

    def _claims(self, token: str, typ: str, kind: type[Claims]) -> Claims:
        parts = token.split(".")
        _require("malformed", len(token) <= _MAX_CHARACTERS and len(parts) <= 3)
        _require("truncated", len(parts) == 3)
        header, payload, signature = (_decoded(part) for part in parts)
        public = self._key(parse_object(header, "header"), typ)
        _check_signature(public, signature, f"{parts[0]}.{parts[1]}".encode("ascii"))
        return typed(parse_object(payload, "claims"), kind)

    def _key(self, header: dict[str, Any], typ: str) -> ec.EllipticCurvePublicKey:
        """The pinned key that the header names. Other members are ignored, a key among them above all."""
        _require("alg", header.get("alg") == "ES256")
        _require("crit", "crit" not in header)
        _require("typ", header.get("typ") == typ)
        kid = header.get("kid")
        public = self._keys.get(kid) if isinstance(kid, str) else None
        if public is None:
            raise TokenInvalid("kid")
        return public


def is_token_of(claims: VerdictClaims, token: str) -> bool:
    """Whether `token` is the one that the verdict came with, and not one that a relay put beside it."""
    return token.isascii() and claims.th == base64url.digest(token.encode())


def _require(reason: str, holds: bool) -> None:
    if not holds:
        raise TokenInvalid(reason)


def _decoded(part: str) -> bytes:
    try:
        return base64url.decode(part)
    except ValueError:
        raise TokenInvalid("base64") from None


def _check_signature(public: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> None:
    _require("signature_length", len(signature) == _SIGNATURE_BYTES)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public.verify(encode_dss_signature(r, s), signed, _ECDSA)
    except InvalidSignature:
        raise TokenInvalid("signature") from None


def _is_of_no_product(claims: VerdictClaims, act: str) -> bool:
    """Calls that carry no product, about a key that nobody knows: there is no product to name."""
    return (
        claims.aud is None and claims.sub is None and claims.code == "NOT_FOUND" and act not in ("validate", "activate")
    )
