"""The one form of a license key (contract, section 8): what admins paste has been through mail and word processors.

Every admin's intake brings a key to it before the key is hashed; client calls take the key as it was sent, since the
clients have done the same. `tests/vectors/keys.json` keeps all four in agreement.
"""

from __future__ import annotations

import re

#: Control characters, line and paragraph breaks, soft hyphens, zero-width and direction marks.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_SPACES = "\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_QUOTES = "\"'`\u00ab\u00b4\u00bb\u2018-\u201f\u2039\u203a\u300c-\u300f\u301d-\u301f\uff02\uff07\uff40"
_AT_THE_ENDS = re.compile(f"^[{_SPACES}{_QUOTES}]+|[{_SPACES}{_QUOTES}]+$")
#: Full-width forms lie this far above their ASCII characters.
_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63, 0xFF0D], "-")
_SPACE = re.compile(f"[{_SPACES}]")
#: The letters that Crockford's base32 leaves out, as people read them, and small letters.
_READ_AS = str.maketrans("abcdefghijklmnopqrstuvwxyzOIL", "ABCDEFGH1JK1MN0PQRSTUVWXYZ011")
_OURS = re.compile("[0-9A-HJKMNP-TV-Z]+")
#: Crockford's base32: no letter that reads like another or like a digit. A character's place is its value.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Four groups of seven, the last character of which is the check character; the first release made five of six.
LENGTH, GROUP = 28, 7
_OLD_LENGTH, _OLD_GROUP = 30, 6
#: How many characters more or fewer, and how many that are in no key of ours, still look like a slip of the hand.
_SLIPS, _STRANGE = 1, 2


def canonical_key(text: str) -> str:
    """`text` as the license key that is meant; applied twice it changes nothing more.

    A key of our own making is found in any letters, spacing and dashes; any other keeps its own.
    """
    shown = _AT_THE_ENDS.sub("", _INVISIBLE.sub("", text))
    plain = _SPACE.sub(" ", shown.translate(_FULL_WIDTH | _DASHES)).strip(" ")
    compact = plain.replace(" ", "").replace("-", "").translate(_READ_AS)
    ours = _grouped(compact)
    return plain if ours is None else ours


def check_character(characters: str) -> str:
    """What follows `characters` (of `ALPHABET`, at most 30) so that the whole adds up.

    A sum over GF(32), each place weighted by another power of x: any one wrong character is noticed, and any two that
    were swapped, side by side or not.
    """
    return ALPHABET[_doubled(_sum(characters))]


def looks_mistyped(text: str) -> bool:
    """Whether `text`, however it was pasted, is almost a key of our own making, and none.

    No answer to whether there is such a license: a vendor's own key may look like that. Every key of the first release
    is well formed, since those have no check character.
    """
    compact = canonical_key(text).replace(" ", "").replace("-", "").translate(_READ_AS)
    size = len(compact.encode("utf-16-le", "surrogatepass")) // 2
    strange = size - sum(each in ALPHABET for each in compact)
    is_near = LENGTH - _SLIPS <= size <= _OLD_LENGTH + _SLIPS and strange <= _STRANGE
    return is_near and _grouped(compact) is None


def _grouped(compact: str) -> str | None:
    """The key of our own making that `compact` is, as it is written; None where it is none."""
    if _OURS.fullmatch(compact) is None:
        return None
    if len(compact) == LENGTH and _sum(compact) == 0:
        group = GROUP
    elif len(compact) == _OLD_LENGTH:
        group = _OLD_GROUP
    else:
        return None
    return "-".join(compact[at : at + group] for at in range(0, len(compact), group))


def _sum(characters: str) -> int:
    """Horner's rule at x in GF(32) modulo x^5 + x^2 + 1, where x has the order 31; 0 with a right check character."""
    total = 0
    for each in characters:
        total = _doubled(total) ^ ALPHABET.index(each)
    return total


def _doubled(value: int) -> int:
    return value << 1 ^ (0b100101 if value & 16 else 0)
