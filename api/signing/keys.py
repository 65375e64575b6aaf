"""The P-256 keys that sign: read from settings, generated, and shown to clients as a JWKS.

Errors say what is wrong with which block and never show any part of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypedDict

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from api.signing.base64url import b64url, b64url_decode

_BLOCK = re.compile(r"-----BEGIN (?P<label>[A-Z0-9 ]{1,40})-----.*?-----END (?P=label)-----", re.DOTALL)
_PRIVATE_LABELS = frozenset({"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"})
_COORDINATE_BYTES = 32


class SigningKeyError(Exception):
    """A text or a JWK does not give usable P-256 keys. The message says why, without showing any of it."""


class PublicJwk(TypedDict):
    """A public key as clients pin it. `x` and `y`: base64url of 32 bytes; `kid`: the RFC 7638 thumbprint."""

    kty: str
    crv: str
    x: str
    y: str
    kid: str
    alg: str
    use: str


class Jwks(TypedDict):
    """What `/.well-known/jwks.json` answers."""

    keys: list[PublicJwk]


@dataclass(frozen=True)
class SigningKey:
    """A P-256 private key. Two are equal when their `kid` is; `repr` shows nothing but the `kid`."""

    kid: str
    private: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> SigningKey:
        """Name a private key by its thumbprint. Raises `SigningKeyError` when its curve is another than P-256."""
        if not isinstance(private.curve, ec.SECP256R1):
            raise SigningKeyError(f"is on the curve {private.curve.name}; ES256 needs P-256 (secp256r1)")
        return cls(kid=public_jwk(private.public_key())["kid"], private=private)

    @property
    def public_jwk(self) -> PublicJwk:
        """The half that clients and the ledger may know."""
        return public_jwk(self.private.public_key())

    def derived(self, purpose: str, salt: bytes, length: int) -> bytes:
        """`length` bytes that only those who hold this key can make again: HKDF-SHA256 (RFC 5869)."""
        secret = self.private.private_numbers().private_value.to_bytes(_COORDINATE_BYTES, "big")
        return HKDF(algorithm=SHA256(), length=length, salt=salt, info=purpose.encode()).derive(secret)

    def pem(self) -> str:
        """The private key as PKCS #8 PEM: a secret, for `flask secrets` and a file with mode 0600."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode("ascii")


def generate() -> SigningKey:
    """A new key pair."""
    return SigningKey.of(ec.generate_private_key(ec.SECP256R1()))


def parse_signing_keys(text: str) -> tuple[SigningKey, ...]:
    """Read `SIGNING_KEY`: one or more private keys, as PEM blocks one after another or as base64 of such a text.

    Returns the keys in their order, at least one. Raises `SigningKeyError`.
    """
    keys: list[SigningKey] = []
    for number, (label, block) in enumerate(_blocks(_as_pem(text)), start=1):
        try:
            key = _private_key(label, block)
        except SigningKeyError as error:
            raise SigningKeyError(f"key {number} {error}") from None
        if key in keys:
            raise SigningKeyError(f"key {number} is the same as key {keys.index(key) + 1}")
        keys.append(key)
    return tuple(keys)


def public_jwk(public: ec.EllipticCurvePublicKey) -> PublicJwk:
    """A P-256 public key as a JWK, its `kid` the SHA-256 thumbprint of RFC 7638 in base64url."""
    numbers = public.public_numbers()
    x = b64url(numbers.x.to_bytes(_COORDINATE_BYTES, "big"))
    y = b64url(numbers.y.to_bytes(_COORDINATE_BYTES, "big"))
    thumbprint = sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode("ascii")).digest()
    return PublicJwk(kty="EC", crv="P-256", x=x, y=y, kid=b64url(thumbprint), alg="ES256", use="sig")


def load_public_jwk(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """The public key of a JWK. Raises `SigningKeyError` when it is not a point of P-256 for ES256 with a `kid`."""
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or jwk.get("alg", "ES256") != "ES256":
        raise SigningKeyError("is not an EC key on P-256 for ES256")
    if not isinstance(jwk.get("kid"), str):
        raise SigningKeyError("has no kid")
    try:
        x, y = (b64url_decode(jwk[name]) for name in ("x", "y"))
        if len(x) != _COORDINATE_BYTES or len(y) != _COORDINATE_BYTES:
            raise ValueError("a coordinate has another length")
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        return numbers.public_key()
    except (KeyError, TypeError, ValueError):
        raise SigningKeyError("does not hold a point of P-256 in x and y") from None


def jwks(current: PublicJwk, others: Iterable[PublicJwk]) -> Jwks:
    """The key set to publish: the current key first, then the others; a key that comes twice is shown once."""
    by_kid = {current["kid"]: current}
    for jwk in others:
        by_kid.setdefault(jwk["kid"], jwk)
    return Jwks(keys=list(by_kid.values()))


def _as_pem(text: str) -> str:
    if "-----BEGIN " in text:
        return text
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True).decode("ascii")
    except ValueError:
        decoded = ""
    if "-----BEGIN " not in decoded:
        raise SigningKeyError("neither PEM nor base64 of PEM")
    return decoded


def _blocks(pem: str) -> list[tuple[str, str]]:
    """The PEM blocks as (label, block). `openssl ecparam` writes the curve's name before the key: that is no key."""
    found = [(match["label"], match[0]) for match in _BLOCK.finditer(pem)]
    if "-----" in _BLOCK.sub("", pem):
        raise SigningKeyError("a PEM block is cut off or damaged: its BEGIN and END lines do not match")
    keys = [(label, block) for label, block in found if label != "EC PARAMETERS"]
    if not keys:
        raise SigningKeyError("holds the parameters of a curve and no key")
    return keys


def _private_key(label: str, block: str) -> SigningKey:
    if label.endswith("PUBLIC KEY"):
        raise SigningKeyError("is a public key; signing needs the private one")
    if label not in _PRIVATE_LABELS:
        raise SigningKeyError(f"is a block of the kind {label}, not a private key")
    try:
        private = serialization.load_pem_private_key(block.encode("utf-8"), password=None)
    except TypeError:
        raise SigningKeyError("is protected by a password; give it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyError("is a damaged PEM block, or not EC P-256") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise SigningKeyError("is not an EC key; ES256 needs EC P-256")
    return SigningKey.of(private)
