"""The public keys that a program pins: PEM, JWK or a whole JWKS, named by their `kid`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from license_client import base64url
from license_client.errors import ConfigurationError

PublicKeys = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]
Pinned = dict[str, ec.EllipticCurvePublicKey]

_COORDINATE_BYTES = 32


def pinned(public_keys: PublicKeys) -> Pinned:
    """By `kid`: PEM texts (one or more blocks each), JWKs, and JWKSs, one or several. Raises `ConfigurationError`.

    The `kid` of a PEM key, and of a JWK without one, is the RFC 7638 thumbprint: what the servers use.
    """
    found: Pinned = {}
    for given in [public_keys] if isinstance(public_keys, str | Mapping) else public_keys:
        for kid, key in _keys_in(given):
            if kid in found:
                raise ConfigurationError(f"public_keys: the key {kid} comes twice")
            found[kid] = key
    if not found:
        raise ConfigurationError("public_keys: at least one key must be pinned")
    return found


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """The RFC 7638 thumbprint of a P-256 key."""
    numbers = key.public_numbers()
    x, y = (base64url.encode(each.to_bytes(_COORDINATE_BYTES, "big")) for each in (numbers.x, numbers.y))
    return base64url.digest(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode("ascii"))


def _keys_in(given: str | Mapping[str, Any]) -> list[tuple[str, ec.EllipticCurvePublicKey]]:
    if isinstance(given, str):
        return [(thumbprint(key), key) for key in _from_pem(given)]
    if not isinstance(given, Mapping):
        raise ConfigurationError("public_keys: each must be a PEM text or a JWK")
    listed = given.get("keys", [given])
    if not isinstance(listed, list) or not all(isinstance(jwk, Mapping) for jwk in listed):
        raise ConfigurationError("public_keys: the key set does not list its keys")
    return [_from_jwk(jwk) for jwk in listed]


def _from_pem(text: str) -> list[ec.EllipticCurvePublicKey]:
    if "PRIVATE KEY" in text:
        raise ConfigurationError("public_keys: this is a private key; it must never be in a program")
    end = "-----END PUBLIC KEY-----"
    blocks = [block + end for block in text.split(end)[:-1]]
    if not blocks:
        raise ConfigurationError("public_keys: neither a PEM text with a public key nor a JWK")
    try:
        found = [serialization.load_pem_public_key(block.strip().encode("ascii")) for block in blocks]
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("public_keys: a PEM block is damaged") from None
    keys = [key for key in found if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)]
    if len(keys) < len(found):
        raise ConfigurationError("public_keys: a key is not on the curve P-256")
    return keys


def _from_jwk(jwk: Mapping[str, Any]) -> tuple[str, ec.EllipticCurvePublicKey]:
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or jwk.get("alg", "ES256") != "ES256":
        raise ConfigurationError("public_keys: a JWK is not for ES256")
    try:
        x, y = (base64url.decode(jwk[name]) for name in ("x", "y"))
        if len(x) != _COORDINATE_BYTES or len(y) != _COORDINATE_BYTES:
            raise ValueError("a coordinate has another length")
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        key = numbers.public_key()
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError("public_keys: a JWK does not hold a point of P-256") from None
    kid = jwk.get("kid", thumbprint(key))
    if not isinstance(kid, str):
        raise ConfigurationError("public_keys: a kid is not a text")
    return kid, key
