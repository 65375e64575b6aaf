"""The Python client agrees with every case of tests/vectors/vectors.json, reason by reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from license_client import TokenInvalid, Verifier
from license_client.calls import Call, Credentials, signature
from license_client.license_key import canonical_key, looks_mistyped
from license_client.verify import is_token_of
from tests.vectors import cases, generate

VECTORS = json.loads(generate.FILE.read_text(encoding="ascii"))
PAIRS = json.loads(generate.KEYS_FILE.read_text(encoding="ascii"))["pairs"]
VERIFIER = Verifier([VECTORS["jwks"]])
CALL = {**cases.call(), "body": cases.call()["body"].encode()}


def each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[name], ids=[case["name"] for case in VECTORS[name]])


def outcome(verify: Any, case: dict[str, Any]) -> str:
    inputs = {name: value for name, value in case.items() if name not in ("name", "token", "expect")}
    if "body" in inputs:
        inputs["body"] = inputs["body"].encode()
    try:
        verify(case["token"], **inputs)
    except TokenInvalid as refused:
        return refused.reason
    return "valid"


def test_the_format_is_the_one_described() -> None:
    assert VECTORS["format"] == 2
    assert len(VECTORS["verdicts"]) + len(VECTORS["leases"]) >= 40


@each("verdicts")
def test_every_verdict_has_its_outcome(case: dict[str, Any]) -> None:
    assert outcome(VERIFIER.verify_verdict, case) == case["expect"]


@each("leases")
def test_every_lease_has_its_outcome(case: dict[str, Any]) -> None:
    assert outcome(VERIFIER.verify_lease, case) == case["expect"]


@each("token_hashes")
def test_every_token_beside_a_verdict_is_told_from_its_own(case: dict[str, Any]) -> None:
    claims = VERIFIER.verify_verdict(cases.verdict_token(cases.verdict_claims(th=case["th"])), **CALL)
    assert is_token_of(claims, case["token"]) == (case["expect"] == "valid")


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["name"] for pair in PAIRS])
def test_every_pasted_key_has_its_one_form_and_a_slip_is_noticed(pair: dict[str, Any]) -> None:
    assert canonical_key(pair["text"]) == pair["key"] == canonical_key(pair["key"])
    assert looks_mistyped(pair["text"]) == pair["mistyped"] == looks_mistyped(pair["key"])


@each("requests")
def test_every_request_is_signed_as_the_servers_expect(case: dict[str, Any]) -> None:
    call = Call(act=case["path"].removeprefix("/v1/"), key="-", fields={}, request_id=case["request_id"])
    headers = Credentials(None, case["secret"]).headers(call, case["body"].encode(), case["timestamp"])
    assert headers["X-Signature"] == case["signature"] == signature(case["secret"], case["text"].encode())
    assert (headers["X-Request-Id"], headers["X-Timestamp"]) == (case["request_id"], str(case["timestamp"]))
