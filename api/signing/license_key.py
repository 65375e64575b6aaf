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
_OURS = re.compile("[0-9A-HJKMNP-TV-Z]{30}")
_GROUP = 6


def canonical_key(text: str) -> str:
    """`text` as the license key that is meant; applied twice it changes nothing more.

    A key of our own shape (five groups of six) is found in any letters, spacing and dashes; any other keeps its own.
    """
    shown = _AT_THE_ENDS.sub("", _INVISIBLE.sub("", text))
    plain = _SPACE.sub(" ", shown.translate(_FULL_WIDTH | _DASHES)).strip(" ")
    compact = plain.replace(" ", "").replace("-", "").translate(_READ_AS)
    if _OURS.fullmatch(compact) is None:
        return plain
    return "-".join(compact[at : at + _GROUP] for at in range(0, len(compact), _GROUP))
