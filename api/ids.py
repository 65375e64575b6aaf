"""Identifiers: random ones that sort by time, and the one that a retry of a call shares with the call."""

from __future__ import annotations

import os
import random
import time
import uuid

#: Stands ahead of the pattern of an id that callers choose, in Python and ECMAScript: no 28 or 30 letters and digits,
#: whatever dashes between them. They may be a license key, and ids are answered, logged and kept.
NO_LICENSE_KEY = "(?!(?:-*[0-9A-Za-z]){28}(?:(?:-*[0-9A-Za-z]){2})?-*$)"

_62_BITS = (1 << 62) - 1
# Ids are names and no secrets, so a generator that the kernel seeds will do: each call of the kernel itself would let
# another thread take the interpreter. A process that is forked must not draw what its parent draws.
_random = random.Random()  # noqa: S311 - ids are no secrets
os.register_at_fork(after_in_child=_random.seed)
_RETRIES = uuid.UUID("0d2c1a44-93b8-5c52-8e51-3a1f0a8f7a35")


def new_id() -> str:
    """A UUID version 7 (RFC 9562): random, and sorted by creation, which keeps index pages together."""
    stamp = time.time_ns() // 1_000_000
    drawn = _random.getrandbits(74)
    text = f"{stamp << 80 | 0x7 << 76 | drawn >> 62 << 64 | 0x2 << 62 | drawn & _62_BITS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def retry_id(act: str, key_hash: str, request_id: str) -> str:
    """The event id that every retry of one call has, on whichever node it arrives."""
    return str(uuid.uuid5(_RETRIES, f"{act}\x1f{key_hash}\x1f{request_id}"))
