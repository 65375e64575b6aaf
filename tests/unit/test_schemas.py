"""What clients may send: strict, each fault with its field, and nothing through that a ledger could refuse."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.checks.schemas import BODIES, FieldError, call_of, is_request_id, is_version, parse_call
from api.licensing import Act, Call

KEY, NONCE = "a-license-key", "n" * 16


def body(**fields: Any) -> bytes:
    return json.dumps({"key": KEY, "nonce": NONCE, **fields}).encode()


def fault(act: Act, raw: bytes) -> FieldError:
    with pytest.raises(FieldError) as refused:
        parse_call(act, raw)
    return refused.value


def test_every_act_has_a_body() -> None:
    assert set(BODIES) == set(Act)


def test_a_full_body_becomes_the_call_that_is_decided() -> None:
    fields = {"fingerprint": "f", "product": "p", "version": "1.0", "entitlements": ["a", "b"]}
    call = call_of(Act.VALIDATE, parse_call(Act.VALIDATE, body(**fields)))
    assert call == Call(act=Act.VALIDATE, fingerprint="f", product="p", version="1.0", entitlements=("a", "b"))


def test_what_is_not_sent_and_what_is_null_are_the_same() -> None:
    nulls = dict.fromkeys(("fingerprint", "product", "version", "entitlements", "client"))
    sent, left_out = (call_of(Act.VALIDATE, parse_call(Act.VALIDATE, body(**one))) for one in (nulls, {}))
    assert sent == left_out == Call(act=Act.VALIDATE)


def test_an_increment_is_one_unless_said_otherwise() -> None:
    assert call_of(Act.USAGE, parse_call(Act.USAGE, body())).increment == 1
    assert call_of(Act.USAGE, parse_call(Act.USAGE, body(increment=1_000_000))).increment == 1_000_000


def test_the_call_holds_neither_key_nor_nonce_nor_client() -> None:
    call = call_of(Act.USAGE, parse_call(Act.USAGE, body(client={"app": "x"})))
    assert not {"key", "nonce", "client"} & set(call.__struct_fields__)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", "$"),
        (b"[]", "$"),
        (b"{", "$"),
        (b"\xff", "$"),
        (b"[" * 50_000, "$"),
        (b"{}", "key"),
        (body(unknown=1), "unknown"),
        (body(increment=0), "increment"),
        (body(key="short"), "key"),
        (body(key=None), "key"),
        (body(client="text"), "client"),
        (body(client={"app": "x" * 1024}), "client"),
        (b'{"key":"\\ud800 long enough"}', "$"),
    ],
)
def test_a_fault_names_its_field(raw: bytes, field: str) -> None:
    error = fault(Act.USAGE, raw)
    assert error.field == field
    assert error.detail
    assert str(error) == f"{field}: {error.detail}"


def test_a_fault_inside_a_list_names_the_list() -> None:
    assert fault(Act.VALIDATE, body(entitlements=["good", 7])).field.startswith("entitlements")


def test_the_client_object_may_be_1_kib_and_no_more() -> None:
    largest = {"a": "x" * (1024 - len('{"a":""}'))}
    assert parse_call(Act.USAGE, body(client=largest)).client == largest
    assert fault(Act.USAGE, body(client={"a": largest["a"] + "x"})).field == "client"


@pytest.mark.parametrize(
    ("text", "good"),
    [("1.0", True), ("1!2.0a1.post3.dev4+x", True), ("v1", True), ("", False), ("one", False), ("1.0.*", False)],
)
def test_versions_are_those_of_pep_440(text: str, good: bool) -> None:
    assert is_version(text) == good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("x" * 8, True),
        ("x" * 64, True),
        ("A-z_0123", True),
        ("x" * 7, False),
        ("x" * 65, False),
        ("x" * 8 + "\n", False),
    ],
)
def test_request_ids_are_8_to_64_of_a_few_characters(text: str, good: bool) -> None:
    assert is_request_id(text) == good


@given(st.sampled_from(list(Act)), st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(act: Act, raw: bytes) -> None:
    with contextlib.suppress(FieldError):
        parse_call(act, raw)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_names = st.sampled_from(["fingerprint", "product", "version", "entitlements", "name", "platform", "increment", "ttl"])


@given(st.sampled_from(list(Act)), st.dictionaries(_names | st.text(), _json, max_size=4), st.text(max_size=140))
def test_what_is_taken_is_fit_for_any_ledger(act: Act, fields: dict[str, Any], key: str) -> None:
    try:
        taken = parse_call(act, json.dumps({"nonce": NONCE, **fields, "key": key}).encode())
    except FieldError:
        return
    call = call_of(act, taken)
    texts = [taken.key, *(text for text in (call.fingerprint, call.product, call.version, call.name) if text)]
    assert all("\x00" not in text and text.encode() for text in [*texts, *call.entitlements])
    assert 1 <= call.increment <= 1_000_000
