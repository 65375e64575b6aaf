"""Where a page of a list ended, as text that only this server makes sense of."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from api.problems import Malformed
from api.signing.base64url import b64url, b64url_decode

T = TypeVar("T", int, str)


def encode(list: str, after: str | int) -> str:
    """The cursor behind the item `after` (its id or `seq`) of the list called `list`."""
    return b64url(msgspec.json.encode((list, after)))


def decode(list: str, cursor: str, type: type[T]) -> T:
    """What `encode` was given as `after`. Raises `Malformed` for a cursor that this list never gave."""
    try:
        named, after = msgspec.json.decode(b64url_decode(cursor), type=tuple[str, type])  # type: ignore[valid-type]
    except (ValueError, msgspec.MsgspecError):
        named, after = "", type()
    if named != list or not _plausible(after):
        raise Malformed("cursor", "is none that this list gave")
    return after


def _plausible(after: str | int) -> bool:
    if isinstance(after, int):
        return 0 <= after < 2**63
    return after.isascii() and after.isprintable() and len(after) <= 36
