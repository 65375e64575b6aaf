"""JWS compact and JWKs by hand from the RFCs: vectors and forgeries must not depend on the code that they test."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

#: The order of the curve P-256: r and s lie between 1 and this, exclusive.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def digest(data: bytes | str) -> str:
    return b64(hashlib.sha256(data.encode() if isinstance(data, str) else data).digest())


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def key_of(label: str) -> ec.EllipticCurvePrivateKey:
    """A private key that everybody can compute from its label: for tests only."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(label.encode()).digest(), "big"), ec.SECP256R1())


def jwk_of(private: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    point = private.public_key().public_numbers()
    named = {"crv": "P-256", "kty": "EC", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}
    return {**named, "kid": digest(dumps(named)), "alg": "ES256", "use": "sig"}


def pem_of(private: ec.EllipticCurvePrivateKey) -> str:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def header_of(private: ec.EllipticCurvePrivateKey, typ: str) -> dict[str, Any]:
    return {"alg": "ES256", "kid": jwk_of(private)["kid"], "typ": typ}


def rs_of(private: ec.EllipticCurvePrivateKey, signed: bytes) -> tuple[int, int]:
    """r and s with the nonce of RFC 6979: the same for the same bytes, for ever."""
    der = private.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return utils.decode_dss_signature(der)


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def compact(header: Any, claims: Any, private: ec.EllipticCurvePrivateKey) -> str:
    """A signed token over any header and claims: values to encode as JSON, or the very bytes."""
    parts = (part if isinstance(part, bytes) else dumps(part) for part in (header, claims))
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(raw(*rs_of(private, signed.encode())))}"


def resigned(token: str, signature: bytes) -> str:
    """The token with another signature."""
    return f"{token.rpartition('.')[0]}.{b64(signature)}"
