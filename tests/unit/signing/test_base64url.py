"""Base64url: one text for each value, and no other text accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.signing.base64url import b64url, b64url_decode


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_what_is_written_reads_back(data: bytes) -> None:
    assert b64url_decode(b64url(data)) == data


@settings(deadline=None)
@given(st.text(alphabet="ABab01-_+/= \n.é", max_size=12))
def test_a_text_is_refused_or_is_the_only_one_for_its_bytes(text: str) -> None:
    try:
        data = b64url_decode(text)
    except ValueError:
        return
    assert b64url(data) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("_w==", "padding"),
        ("_w=", "half a padding"),
        ("/w", "the other alphabet"),
        ("_w\n", "a line end"),
        (" _w", "white space"),
        ("A", "an impossible length"),
        ("_x", "trailing bits in two characters"),
        ("__9", "trailing bits in three characters"),
        ("_\uff37", "a wide letter"),
    ],
)
def test_an_odd_text_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"not base64url|trailing bits"):
        b64url_decode(text)
