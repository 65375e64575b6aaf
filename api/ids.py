"""Identifiers: random ones that sort by time, and the one that a retry of a call shares with the call."""

from __future__ import annotations

import os
import time
import uuid

_RETRIES = uuid.UUID("0d2c1a44-93b8-5c52-8e51-3a1f0a8f7a35")


def new_id() -> str:
    """A UUID version 7 (RFC 9562): random, and sorted by creation, which keeps index pages together."""
    stamp = time.time_ns() // 1_000_000
    value = (stamp << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def retry_id(act: str, key_hash: str, request_id: str) -> str:
    """The event id that every retry of one call has, on whichever node it arrives."""
    return str(uuid.uuid5(_RETRIES, f"{act}\x1f{key_hash}\x1f{request_id}"))
