"""Public and private P-256 keys as the servers take them and clients pin them."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from license_client import base64url
from license_client.keys import thumbprint

_COORDINATE_BYTES = 32


def generate() -> ec.EllipticCurvePrivateKey:
    """A new key pair."""
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The key as a JWK (RFC 7517), its `kid` the thumbprint of RFC 7638."""
    numbers = key.public_numbers()
    x, y = (base64url.encode(each.to_bytes(_COORDINATE_BYTES, "big")) for each in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": thumbprint(key), "alg": "ES256", "use": "sig"}


def one_line_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The private key as `SIGNING_KEY` takes it in one line: base64 of its PKCS #8 PEM."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return base64.b64encode(pem).decode("ascii")
