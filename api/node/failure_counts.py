"""Failures per key, counted for all workers of a node together, in windows that start with the first failure."""

from __future__ import annotations

import hashlib
import struct

from api.node.mapped_file import SLOT_SIZE, SLOTS, SLOTS_AT, MappedFile

#: tag of the key, start of its window (monotonic seconds), failures in it
_SLOT = struct.Struct("<QdI")
_PROBES = 8


class FailureCounts:
    """A hash table of fixed size: where it is full, the keys with the fewest failures are pushed out."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file

    def count(self, key: str, window_s: float) -> tuple[int, float]:
        """The failures of `key` in its present window, and the seconds until that ends (0, 0 where there is none)."""
        offset, tag = self._find(key, window_s)
        start, count = self._window(offset, tag, window_s)
        return count, start + window_s - self._file.monotonic() if count else 0.0

    def failed(self, key: str, window_s: float) -> None:
        """Counts one more failure of `key`."""
        with self._file.exclusive():
            offset, tag = self._find(key, window_s)
            start, count = self._window(offset, tag, window_s)
            _SLOT.pack_into(self._file.memory, offset, tag, start, count + 1)

    def _window(self, offset: int, tag: int, window_s: float) -> tuple[float, int]:
        """When the present window of `tag` began, and the failures in it: now and none where there is none."""
        held, start, count = _SLOT.unpack_from(self._file.memory, offset)
        now = self._file.monotonic()
        return (start, count) if held == tag and _is_live(start, now, window_s) else (now, 0)

    def _find(self, key: str, window_s: float) -> tuple[int, int]:
        """The slot of `key`, else a free one, else the one with the fewest failures; and the key's tag."""
        digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).digest()
        tag, home = struct.unpack("<QQ", digest)
        now = self._file.monotonic()
        best, fewest = 0, float("inf")
        for probe in range(_PROBES):
            offset = SLOTS_AT + ((home + probe) % SLOTS) * SLOT_SIZE
            held, start, count = _SLOT.unpack_from(self._file.memory, offset)
            live = _is_live(start, now, window_s)
            if held == tag and live:
                return offset, tag
            weight = count if live else 0
            if weight < fewest:
                best, fewest = offset, weight
        return best, tag


def _is_live(start: float, now: float, window_s: float) -> bool:
    """By how long it has run: `start + window_s - now` may be rounded to more than `window_s`."""
    return 0.0 <= now - start < window_s
