"""Keys, verdict and lease tokens, and how they are verified. Pure: no clock, no storage, no framework."""

from api.signing.base64url import b64url
from api.signing.keyring import KeyChangeRefused, KeyNotPermitted, Keyring, KeyStatus, PermittedKeys
from api.signing.keys import (
    Jwks,
    PublicJwk,
    SigningKey,
    SigningKeyError,
    generate,
    jwks,
    load_public_jwk,
    parse_signing_keys,
    public_jwk,
)
from api.signing.tokens import (
    ISSUER,
    LEASE_TYP,
    VERDICT_LIFETIME_S,
    VERDICT_TYP,
    LeaseClaims,
    Signer,
    VerdictClaims,
    body_claim,
    key_claim,
    token_claim,
)
from api.signing.verify import CLOCK_LEEWAY_S, Reason, TokenInvalid, Verifier

__all__ = [
    "CLOCK_LEEWAY_S",
    "ISSUER",
    "LEASE_TYP",
    "VERDICT_LIFETIME_S",
    "VERDICT_TYP",
    "Jwks",
    "KeyChangeRefused",
    "KeyNotPermitted",
    "KeyStatus",
    "Keyring",
    "LeaseClaims",
    "PermittedKeys",
    "PublicJwk",
    "Reason",
    "Signer",
    "SigningKey",
    "SigningKeyError",
    "TokenInvalid",
    "VerdictClaims",
    "Verifier",
    "b64url",
    "body_claim",
    "generate",
    "jwks",
    "key_claim",
    "load_public_jwk",
    "parse_signing_keys",
    "public_jwk",
    "token_claim",
]
