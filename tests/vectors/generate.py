"""Writes `vectors.json` and `keys.json`: the same bytes every time, from fixed keys and deterministic ECDSA (RFC 6979).

python -m tests.vectors.generate
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

from tests.vectors import jws, keys
from tests.vectors.cases import CURRENT, NOW, SECOND, STRANGER, Json, lease_claims, lease_token
from tests.vectors.good_and_bad import lease_cases, token_cases, verdict_cases

FILE = Path(__file__).with_name("vectors.json")
KEYS_FILE = Path(__file__).with_name("keys.json")
SECRET = "test-secret-0123456789abcdef"


def build() -> Json:
    """The whole content of the file."""
    return {
        "about": "Test vectors, described in tests/vectors/README.md. Every key and secret in here is public.",
        "format": 2,
        "jwks": {"keys": [jws.jwk_of(CURRENT), jws.jwk_of(SECOND)]},
        "private_keys_for_tests_only": [
            {"name": name, "kid": jws.jwk_of(key)["kid"], "pem": jws.pem_of(key)}
            for name, key in (("current", CURRENT), ("second", SECOND), ("stranger, not pinned", STRANGER))
        ],
        "requests": request_cases(),
        "request_headers": header_cases(),
        "verdicts": verdict_cases() + token_cases("verdict"),
        "leases": lease_cases() + token_cases("lease"),
        "token_hashes": token_hash_cases(),
    }


def token_hash_cases() -> list[Json]:
    """Whether a token is the one that a verdict with this `th` came with."""
    given, older = lease_token(), lease_token(lease_claims(iat=NOW - 86_400))
    rows = [
        ("the verdict's own token", given, jws.digest(given), "valid"),
        ("an older token put beside it by a relay", older, jws.digest(given), "invalid"),
        ("a token beside a verdict that came with none", given, None, "invalid"),
        ("the hash in other letters", given, jws.digest(given).swapcase(), "invalid"),
        ("the hash padded", given, jws.digest(given) + "=", "invalid"),
        ("a token with a line end", given + "\n", jws.digest(given), "invalid"),
    ]
    return [{"name": name, "token": token, "th": th, "expect": expect} for name, token, th, expect in rows]


def text() -> str:
    """`vectors.json` as it is written: ASCII, so that no reader's idea of an encoding matters."""
    return _ascii(build())


def keys_text() -> str:
    """`keys.json` as it is written."""
    about = "Pasted license keys and the one form of each, described in tests/vectors/README.md."
    return _ascii({"about": about, "format": 1, "pairs": keys.pairs()})


def _ascii(content: Json) -> str:
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def signature_of(secret: str, signed: str) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)).decode()


def request_cases() -> list[Json]:
    """Requests a client signs, and what it must send as `X-Signature`."""
    body = '{"key":"PROT-7Q2M-4XKD-9WFA-3HTZ","nonce":"n0nce-AAAAAAAAAAAAAAAA_01"}'
    rows = [
        ("a plain request", SECRET, "/v1/validate", body),
        ("an empty body", SECRET, "/v1/validate", ""),
        (
            "text outside ASCII is signed as UTF-8",
            SECRET,
            "/v1/activate",
            '{"name":"Escrit\u00f3rio \u2192 \U0001f5a5"}',
        ),
        ("white space and line ends are signed as they are", SECRET, "/v1/usage", '{\r\n  "increment" : 1 }\n'),
        ("dots in the body", SECRET, "/v1/ping", '{"fingerprint":"a.b.c"}'),
        ("a secret longer than a block of SHA-256", "s" * 100, "/v1/check-in", body),
        ("a secret outside ASCII is taken as UTF-8", "segredo-\u00e7\u00e3o", "/v1/checkout", body),
        ("a body of some kilobytes", SECRET, "/v1/validate", '{"client":{"app":"' + "x" * 5_000 + '"}}'),
    ]
    return [_request(*row) for row in rows]


def _request(name: str, secret: str, path: str, body: str) -> Json:
    request_id, timestamp = "req-0123456789", 1_764_000_000
    signed = f"{request_id}.{timestamp}.POST {path}.{body}"
    sent = {"request_id": request_id, "timestamp": timestamp, "method": "POST", "path": path, "body": body}
    return {"name": name, "secret": secret, **sent, "text": signed, "signature": signature_of(secret, signed)}


def header_cases() -> list[Json]:
    """What a server makes of an `X-Signature` header with the secrets it holds (the time is checked apart)."""
    signed = 'req-0123456789.1764000000.POST /v1/validate.{"key":"PROT-7Q2M-4XKD-9WFA-3HTZ"}'
    good, old = signature_of(SECRET, signed), signature_of("the-former-secret", signed)
    rows = [
        ("one signature, one secret", [SECRET], good, "valid"),
        ("the former secret while both are held", [SECRET, "the-former-secret"], old, "valid"),
        ("two signatures, one of them right", [SECRET], f"{old} {good}", "valid"),
        ("an unknown version beside a right one", [SECRET], f"v2,AAAA {good}", "valid"),
        ("a secret that is no longer held", [SECRET], old, "invalid"),
        ("other bytes", [SECRET], signature_of(SECRET, signed + " "), "invalid"),
        ("another method", [SECRET], signature_of(SECRET, signed.replace("POST", "GET")), "invalid"),
        ("another path", [SECRET], signature_of(SECRET, signed.replace("validate", "activate")), "invalid"),
        ("another time", [SECRET], signature_of(SECRET, signed.replace("1764000000", "1764000001")), "invalid"),
        ("another request id", [SECRET], signature_of(SECRET, signed.replace("req-0", "req-1")), "invalid"),
        ("no version", [SECRET], good.removeprefix("v1,"), "invalid"),
        ("another version", [SECRET], good.replace("v1,", "v2,"), "invalid"),
        ("in hexadecimal", [SECRET], "v1," + base64.b64decode(good[3:]).hex(), "invalid"),
        ("cut short", [SECRET], good[:-4], "invalid"),
        ("empty", [SECRET], "", "invalid"),
    ]
    return [{"name": n, "secrets": s, "text": signed, "header": h, "expect": e} for n, s, h, e in rows]


if __name__ == "__main__":
    FILE.write_text(text(), encoding="ascii", newline="\n")
    KEYS_FILE.write_text(keys_text(), encoding="ascii", newline="\n")
