"""Base64url without padding, read strictly: one text for each value, so that no altered text decodes the same.

Source: RFC 7515, appendix C, and RFC 4648, section 3.5.
"""

from __future__ import annotations

import base64
import binascii
import re

_TO_URL = bytes.maketrans(b"+/", b"-_")
_ALPHABET = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def b64url(data: bytes) -> str:
    """The unpadded base64url text of `data`."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """The bytes that `text` stands for.

    Raises `ValueError` for padding, a character outside the alphabet, an impossible length, or trailing bits that
    are not zero (Python's own decoder lets all of these pass).
    """
    if _ALPHABET.fullmatch(text) is None or len(text) % 4 == 1:
        raise ValueError("not base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64url(data) != text:
        raise ValueError("the trailing bits are not zero")
    return data
