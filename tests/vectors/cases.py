"""The world that the vectors play in, and the good tokens that the bad ones are made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.vectors import jws

CURRENT = jws.key_of("protecao test vectors: the current key")
STRANGER = jws.key_of("protecao test vectors: a key that nobody pinned")
#: The second pinned key, whose x begins with a zero byte.
SECOND = next(
    key
    for key in (jws.key_of(f"protecao test vectors: the second key, {number}") for number in count())
    if key.public_key().public_numbers().x >> 248 == 0
)

KEY = "PROT-7Q2M-4XKD-9WFA-3HTZ"
OTHER_KEY = "PROT-0000-1111-2222-3333"
FINGERPRINT = "5d8f2c61a7e94b03"
PRODUCT = "notepad-pro"
NONCE = "n0nce-AAAAAAAAAAAAAAAA_01"
REQUEST_ID = "req-0123456789"
LEDGER = "0198c0de-1ed6-7000-8000-000000000001"
NOW = 1_764_000_000
LICENSE = "0198c0de-0000-7000-8000-000000000001"

Json = dict[str, Any]


def call(act: str = "validate", **changes: Any) -> Json:
    """What the client sent: the inputs of one verdict's verification."""
    sent = {"key": KEY, "nonce": NONCE, "product": PRODUCT, "fingerprint": FINGERPRINT}
    body = json.dumps(sent, separators=(",", ":"))
    about = {"act": act, "nonce": NONCE, "request_id": REQUEST_ID, "body": body}
    return {**about, "key": KEY, "fingerprint": FINGERPRINT, "product": PRODUCT, **changes}


def offline(**changes: Any) -> Json:
    """What the client knows without a server: the inputs of one lease's verification."""
    return {"key": KEY, "fingerprint": FINGERPRINT, "product": PRODUCT, "now": NOW + 3_600, "floor": None, **changes}


def verdict_claims(inputs: Json | None = None, **changes: Any) -> Json:
    """The claims a node signs as the answer to `inputs`, with `changes`; one that is None is left out."""
    sent = inputs or call()
    claims = {
        "iss": "protecao", "iat": NOW, "exp": NOW + 300, "jti": "0198c0de-aaaa-7000-8000-000000000001",
        "act": sent["act"], "nonce": sent["nonce"], "rid": sent["request_id"], "rh": jws.digest(sent["body"]),
        "sub": LICENSE, "kh": jws.digest(sent["key"]), "fp": sent["fingerprint"], "aud": sent["product"],
        "led": LEDGER, "code": "VALID", "valid": True, "lic_exp": NOW + 86_400 * 30, "ent": ["pro"], "uses": 0,
        "node": "railway-1", "epoch": 7, "as_of": NOW,
    }  # fmt: skip
    return _with(claims, changes)


def lease_claims(**changes: Any) -> Json:
    """The claims of an offline token for a week from `NOW`, with `changes`; one that is None is left out."""
    claims = {
        "iss": "protecao", "iat": NOW, "nbf": NOW, "exp": NOW + 604_800, "jti": "0198c0de-bbbb-7000-8000-000000000001",
        "sub": LICENSE, "kh": jws.digest(KEY), "fp": FINGERPRINT, "aud": PRODUCT, "ent": ["pro"],
        "lic_exp": NOW + 86_400 * 30, "grace_until": NOW + 86_400 * 37, "led": LEDGER, "epoch": 7,
    }  # fmt: skip
    return _with(claims, changes)


def _with(claims: Json, changes: Json) -> Json:
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def verdict_token(claims: Any = None, header: Json | None = None, private: Any = CURRENT) -> str:
    """A signed verdict. `header`: members that differ from the right ones."""
    return jws.compact({**jws.header_of(private, "verdict+jwt"), **(header or {})}, claims or verdict_claims(), private)


def lease_token(claims: Any = None, header: Json | None = None, private: Any = CURRENT) -> str:
    """A signed lease. `header`: members that differ from the right ones."""
    return jws.compact({**jws.header_of(private, "lease+jwt"), **(header or {})}, claims or lease_claims(), private)


def searched(make: Callable[[str], str], wanted: Callable[[int, int], bool]) -> str:
    """The first token, by a counter in its `jti`, whose r and s are as wanted."""
    tokens = (make(f"0198c0de-cccc-7000-8000-{number:012d}") for number in count())
    return next(token for token in tokens if wanted(*jws.rs_of(CURRENT, token.rpartition(".")[0].encode())))
