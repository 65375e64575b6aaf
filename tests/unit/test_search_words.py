"""Texts as searches compare them: case, accents, and where a word begins."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ledger.search_words import folded, has_all, terms_of, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("JOSÉ  da\u00a0Silva ", "jose da silva"),
        ("Jose\u0301", "jose"),
        ("Straße", "strasse"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("\u0130stanbul", "istanbul"),
        ("ﬁrma \uff21\uff22", "firma ab"),
        ("\u200eAnn\u200b\r\nLee\ufeff", "ann lee"),
        ("Ann\x07", "ann"),
        ("", ""),
    ],
)
def test_a_text_is_folded(text: str, expected: str) -> None:
    assert folded(text) == expected


@given(st.text(max_size=60))
def test_however_a_text_is_written_it_is_the_same(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert folded(unicodedata.normalize(form, text)) == folded(text)


@given(st.text(max_size=60))
def test_every_text_is_found_by_its_own_words(text: str) -> None:
    assert has_all(words_of([text]), terms_of(text)) == bool(terms_of(text))


def test_a_word_begins_at_a_space_and_behind_whatever_is_no_letter_or_digit() -> None:
    assert words_of(["Ann O'Neill", "ann@a-b.org", None]) == sorted(
        ["ann", "o'neill", "neill", "ann@a-b.org", "a-b.org", "b.org", "org"]
    )


@pytest.mark.parametrize(
    ("searched", "found"),
    [
        ("mül", True), ("MULLER", True), ("ann müller", True), ("müller ann", True), ("example", True),
        ("ann@ex", True), ("a-b", True), ("ller", False), ("ann meier", False), ("%", False), ("", False),
    ],
)  # fmt: skip
def test_each_term_begins_a_word(searched: str, found: bool) -> None:
    assert has_all(words_of(["Ann Müller", "ann@example.org", "a-b"]), terms_of(searched)) == found
