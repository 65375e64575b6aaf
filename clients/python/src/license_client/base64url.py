"""Base64url without padding, read strictly: one text for each value, so that no altered text decodes the same.

Source: RFC 7515, appendix C, and RFC 4648, section 3.5.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256

_STRICT = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def encode(data: bytes) -> str:
    """The unpadded base64url text of `data`."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes that `text` stands for.

    Raises `ValueError` for padding, another character, an impossible length, or unused bits that are not zero.
    """
    if _STRICT.fullmatch(text) is None or len(text) % 4 == 1:
        raise ValueError("not base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise ValueError("the unused bits are not zero")
    return data


def digest(data: bytes) -> str:
    """The SHA-256 of `data`: how tokens name a key (`kh`) and a request's body (`rh`)."""
    return encode(sha256(data).digest())
