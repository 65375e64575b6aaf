"""The file of test vectors: our verifier agrees with every case, and the generator still writes the same bytes."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from joserfc import jws as joserfc_jws
from joserfc.jwk import KeySet

from api.signing import Reason, TokenInvalid, Verifier, parse_signing_keys, token_claim
from api.signing.license_key import canonical_key, looks_mistyped
from tests.vectors import generate

VECTORS = json.loads(generate.FILE.read_text(encoding="ascii"))
VERIFIER = Verifier(VECTORS["jwks"])
PAIRS = json.loads(generate.KEYS_FILE.read_text(encoding="ascii"))["pairs"]
LISTS = ("requests", "request_headers", "verdicts", "leases", "token_hashes")


def each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[name], ids=[case["name"] for case in VECTORS[name]])


def outcome(kind: str, case: dict[str, Any]) -> str:
    inputs = {name: value for name, value in case.items() if name not in ("name", "token", "expect")}
    try:
        if kind == "verdict":
            VERIFIER.verify_verdict(case["token"], **{**inputs, "body": inputs["body"].encode()})
        else:
            VERIFIER.verify_lease(case["token"], **inputs)
    except TokenInvalid as refused:
        return refused.reason
    return "valid"


def signs(secret: str, text: str, signature: str) -> bool:
    """Whether one `v1,...` signature holds, by another HMAC than the generator's."""
    version, _, encoded = signature.partition(",")
    mac = hmac.HMAC(secret.encode(), hashes.SHA256())
    mac.update(text.encode())
    try:
        mac.verify(base64.b64decode(encoded, validate=True))
    except (InvalidSignature, ValueError):
        return False
    return version == "v1"


@each("verdicts")
def test_every_verdict_has_its_outcome(case: dict[str, Any]) -> None:
    assert outcome("verdict", case) == case["expect"]


@each("token_hashes")
def test_every_token_beside_a_verdict_is_told_from_its_own(case: dict[str, Any]) -> None:
    assert (token_claim(case["token"]) == case["th"]) == (case["expect"] == "valid")


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["name"] for pair in PAIRS])
def test_every_pasted_key_has_its_one_form_and_a_slip_is_noticed(pair: dict[str, Any]) -> None:
    assert canonical_key(pair["text"]) == pair["key"] == canonical_key(pair["key"])
    assert looks_mistyped(pair["text"]) == pair["mistyped"] == looks_mistyped(pair["key"])


@each("leases")
def test_every_lease_has_its_outcome(case: dict[str, Any]) -> None:
    assert outcome("lease", case) == case["expect"]


@each("requests")
def test_every_request_is_signed_over_its_text(case: dict[str, Any]) -> None:
    text = f"{case['request_id']}.{case['timestamp']}.{case['method']} {case['path']}.{case['body']}"
    assert case["text"] == text
    assert signs(case["secret"], text, case["signature"])


@each("request_headers")
def test_every_signature_header_has_its_outcome(case: dict[str, Any]) -> None:
    given = case["header"].split(" ")
    holds = any(signs(secret, case["text"], signature) for secret in case["secrets"] for signature in given)
    assert holds == (case["expect"] == "valid")


@pytest.mark.parametrize("name", ["verdicts", "leases"])
def test_an_independent_library_verifies_every_good_token(name: str) -> None:
    keys = KeySet.import_key_set(VECTORS["jwks"])
    good = [case for case in VECTORS[name] if case["expect"] == "valid" and "header members" not in case["name"]]
    for case in good:
        joserfc_jws.deserialize_compact(case["token"], keys, ["ES256"])
    assert len(good) > 5


def test_generating_again_gives_the_same_bytes() -> None:
    assert generate.text().encode("ascii") == generate.FILE.read_bytes()


def test_there_is_a_case_for_every_reason() -> None:
    seen = Counter(case["expect"] for name in ("verdicts", "leases") for case in VECTORS[name])
    assert set(seen) == {"valid", *Reason}
    assert sum(seen.values()) >= 40


@pytest.mark.parametrize("name", LISTS)
def test_names_are_unique(name: str) -> None:
    assert [each for each, times in Counter(case["name"] for case in VECTORS[name]).items() if times > 1] == []


def test_the_private_keys_are_the_pinned_ones_and_a_stranger() -> None:
    keys = parse_signing_keys("".join(held["pem"] for held in VECTORS["private_keys_for_tests_only"]))
    assert [key.public_jwk for key in keys[:2]] == VECTORS["jwks"]["keys"]
    assert keys[2].kid not in {jwk["kid"] for jwk in VECTORS["jwks"]["keys"]}
