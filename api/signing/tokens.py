"""Verdicts and leases as JWS compact, signed ES256. The hot path: about 50 µs each, nearly all of it the curve.

Sources: RFC 7515 (JWS), RFC 7518 section 3.4 (ES256: the raw r and s, 32 bytes each).
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from api.signing.base64url import b64url
from api.signing.keys import SigningKey

ISSUER = "protecao"
VERDICT_TYP = "verdict+jwt"
LEASE_TYP = "lease+jwt"

#: Seconds from a verdict's `iat` to its `exp`.
VERDICT_LIFETIME_S = 300

_encode = msgspec.json.Encoder().encode


class VerdictClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer to one call (contract, section 3). Times are Unix seconds in ledger time, whole numbers.

    `rid`: the call's `X-Request-Id`; `rh`, `kh`, `th`: base64url SHA-256 of the request's raw body, of the license key
    as it was sent, of the offline token beside this one; `led`: the ledger's id; `fp`: the fingerprint that was sent;
    `aud`: the license's product, else the one sent; `sub`: the license's id; `exp`: `iat` + 300. A claim without a
    value is left out of the token: RFC 7519 knows no null.
    """

    iss: str
    iat: int
    exp: int
    jti: str
    act: str
    nonce: str
    rid: str | None = None
    rh: str
    sub: str | None = None
    kh: str
    fp: str | None = None
    aud: str | None = None
    th: str | None = None
    led: str
    code: str
    valid: bool
    lic_exp: int | None = None
    ent: tuple[str, ...]
    uses: int | None = None
    max_uses: int | None = None
    node: str
    epoch: int
    as_of: int


class LeaseClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The offline token: this key runs on this machine from `nbf` until `exp`. Times and `led` as in `VerdictClaims`.

    `lic_exp`: the license's expiry, `grace_until`: the end of its grace; left out where there is none.
    """

    iss: str
    iat: int
    nbf: int
    exp: int
    jti: str
    sub: str
    kh: str
    fp: str
    aud: str
    ent: tuple[str, ...]
    lic_exp: int | None = None
    grace_until: int | None = None
    led: str
    epoch: int


class Signer:
    """Signs with one key, from any thread. `deterministic` takes the nonce of RFC 6979: for test vectors."""

    def __init__(self, key: SigningKey, *, deterministic: bool = False) -> None:
        self.kid = key.kid
        self._private = key.private
        self._algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=deterministic)
        self._verdict_head = _head(key.kid, VERDICT_TYP)
        self._lease_head = _head(key.kid, LEASE_TYP)

    def verdict(self, claims: VerdictClaims) -> str:
        """The compact JWS of one answer."""
        return self._compact(self._verdict_head, claims)

    def lease(self, claims: LeaseClaims) -> str:
        """The compact JWS of one offline token."""
        return self._compact(self._lease_head, claims)

    def _compact(self, head: str, claims: VerdictClaims | LeaseClaims) -> str:
        signed = head + b64url(_encode(claims))
        r, s = decode_dss_signature(self._private.sign(signed.encode("ascii"), self._algorithm))
        return f"{signed}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def key_claim(key: str) -> str:
    """`kh`: base64url SHA-256 of a license key, hashed as it was sent."""
    return b64url(sha256(key.encode("utf-8")).digest())


def body_claim(body: bytes) -> str:
    """`rh`: base64url SHA-256 of a request's raw body."""
    return b64url(sha256(body).digest())


def token_claim(token: str) -> str:
    """`th`: base64url SHA-256 of the offline token that a verdict comes with."""
    return b64url(sha256(token.encode("ascii")).digest())


def _head(kid: str, typ: str) -> str:
    return b64url(_encode({"alg": "ES256", "kid": kid, "typ": typ})) + "."
