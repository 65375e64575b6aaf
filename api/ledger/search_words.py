"""Texts as searches compare them: without regard to case, accents and the way in which a letter is written.

Made here and not by the database: SQLite folds ASCII letters only, and what Postgres folds depends on its locale.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: A word is compared by its beginning only, and a text by at most so many characters: indexes take no longer ones.
_WORD, _TEXT = 64, 320


def folded(text: str) -> str:
    """`text` in small letters without accents, its words one space apart: `  JOSÉ  da Silva` is `jose da silva`."""
    small = text.lower() if text.isascii() and text.isprintable() else _bare(text)
    return " ".join(small.split())[:_TEXT]


def words_of(texts: Iterable[str | None]) -> list[str]:
    """All that a search term may be the beginning of, sorted.

    A word begins at a space and within it behind whatever is no letter or digit: `ann@a-b.org` has `ann@a-b.org`,
    `a-b.org`, `b.org` and `org`.
    """
    words: set[str] = set()
    for text in texts:
        for whole in folded(text or "").split():
            words.update(whole[at : at + _WORD] for at in _beginnings(whole))
    return sorted(words)


def terms_of(text: str) -> list[str]:
    """What is searched for: each term has to be the beginning of a word."""
    return [term[:_WORD] for term in folded(text).split()]


def has_all(words: Iterable[str], terms: Iterable[str]) -> bool:
    """Whether each of `terms` begins one of `words`; no term is begun by none."""
    found, wanted = list(words), list(terms)
    return bool(wanted) and all(any(word.startswith(term) for word in found) for term in wanted)


def _bare(text: str) -> str:
    # Twice: small letters of some capitals are composed ones.
    small = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(letter for letter in small if letter.isspace() or not _is_invisible(letter))


def _is_invisible(letter: str) -> bool:
    """Whether it is an accent, or a control or direction mark as mail and word processors leave them."""
    return bool(unicodedata.combining(letter)) or unicodedata.category(letter) in ("Cc", "Cf")


def _beginnings(word: str) -> list[int]:
    if word.isalnum():
        return [0]
    return [0, *(at for at in range(1, len(word)) if word[at].isalnum() and not word[at - 1].isalnum())]
