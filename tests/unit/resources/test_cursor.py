"""Cursors: what was put in comes out, and nothing else is let in."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.admin import cursor
from api.problems import Malformed
from api.signing.base64url import b64url


@given(st.integers(0, 2**63 - 1))
def test_a_position_comes_back_as_it_went_in(seq: int) -> None:
    assert cursor.decode("events", cursor.encode("events", seq), int) == seq


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(Malformed) as refused:
        cursor.decode("licenses", cursor.encode("policies", "an-id"), str)
    assert refused.value.members["field"] == "cursor"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "made up",
        "AAAA",
        "'; DROP TABLE events; --",
        "\x00",
        "\ud800",
        "a" * 100_000,
        b64url(b"null"),
        b64url(b"[" * 10_000),
        b64url(b'["events"]'),
        b64url(b'["events", "text"]'),
        b64url(b'["events", -1]'),
        b64url(b'["events", 9223372036854775808]'),
        b64url(b'["events", 1e400]'),
        b64url(b'["events", 1, 2]'),
        cursor.encode("events", 5) + "=",
    ],
)
def test_a_made_up_cursor_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        cursor.decode("events", text, int)
    assert refused.value.members["field"] == "cursor"


@pytest.mark.parametrize("after", ["\x00", "a" * 37, "ä", "\ud83d\ude00"])
def test_an_id_that_no_row_can_have_is_refused(after: str) -> None:
    text = b64url(b'["licenses", "' + after.encode("utf-8", "surrogatepass") + b'"]')
    with pytest.raises(Malformed):
        cursor.decode("licenses", text, str)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_were_given(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        seq = cursor.decode("events", b64url(data), int)
        assert json.loads(data) == ["events", seq]
