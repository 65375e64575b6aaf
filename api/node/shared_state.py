"""A small file that the workers of one node share in memory: failure counts, and when what last changed,
and whether the node is cut off from its ledger.

Workers come and go and any WSGI server may have made them, so this is a mapped file and not inherited memory. It
holds nothing that must survive: a damaged or missing file is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

#: The file's name in `DATA_DIR`.
STATE_NAME = "shared-state.bin"
_HEADER = struct.Struct("<Q")
#: tag of the key, start of its window (monotonic seconds), failures in it
_SLOT = struct.Struct("<QdI")
_SLOT_SIZE = 24
_SLOTS = 16_384
_PROBES = 8
_OFFSET = 64
#: When (monotonic) a license was last written by this node, by its key; keys that share a place share the moment.
_MOMENT = struct.Struct("<d")
_MOMENTS = 8_192
_MOMENTS_AT = _OFFSET + _SLOTS * _SLOT_SIZE
_EVERYTHING_AT = 8
#: Since when (monotonic) this node answers without its ledger; 0: it does not.
_CUT_OFF_AT = 16
#: How often something was put into the queue, and how often of that it has been found empty since.
_QUEUED_AT, _DRAINED_AT = 24, 32
#: When (monotonic) it was cut off the last time, over or not.
_LAST_CUT_OFF_AT = 40
#: When (monotonic) the ledger last contradicted the node's copy of it.
_CONTRADICTED_AT = 48
#: When (monotonic) an operator last said that the ledger's clock is right.
_CLOCK_TRUSTED_AT = 56
#: When (monotonic) a client last called.
_CALLED_AT = _MOMENTS_AT + _MOMENTS * _MOMENT.size
#: When (monotonic) a call last went into the queue because its license was busy, kept as above.
_BUSY_MOMENTS_AT = _CALLED_AT + _MOMENT.size
_SIZE = _BUSY_MOMENTS_AT + _MOMENTS * _MOMENT.size
#: For how long a contradiction that no call meets any more is still said.
_CONTRADICTED_FOR_S = 600.0


class SharedState:
    """Counts failures per key in windows that start with the first failure, and numbers changes of license keys."""

    def __init__(self, path: Path | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError where the disk does not take the file; `path` None: this process's alone."""
        self._monotonic = monotonic
        self._file = None if path is None else _open(path)
        self._map = mmap.mmap(-1 if self._file is None else self._file, _SIZE)
        self._lock = threading.Lock()

    def move_to(self, path: Path) -> None:
        """What was this process's alone is the node's from now on, its counts begun anew. Raises OSError."""
        file = _open(path)
        with self._lock:
            self._map, self._file = mmap.mmap(file, _SIZE), file
        # What was written before is not noted there: nothing that was copied until now is newer for certain.
        self.everything_changed()

    @property
    def is_shared(self) -> bool:
        """Whether the other processes of this node have it too."""
        return self._file is not None

    def failures(self, key: str, window_s: float) -> tuple[int, float]:
        """The failures of `key` in its present window, and the seconds until that ends (0, 0 where there is none)."""
        offset, tag = self._find(key, window_s)
        start, count = self._window(offset, tag, window_s)
        return count, start + window_s - self._monotonic() if count else 0.0

    def failed(self, key: str, window_s: float) -> None:
        """Counts one more failure of `key`."""
        with self._alone():
            offset, tag = self._find(key, window_s)
            start, count = self._window(offset, tag, window_s)
            _SLOT.pack_into(self._map, offset, tag, start, count + 1)

    @property
    def key_changes(self) -> int:
        """A number that rises whenever a license key was made on this node."""
        return int(_HEADER.unpack_from(self._map, 0)[0])

    def keys_changed(self) -> None:
        with self._alone():
            _HEADER.pack_into(self._map, 0, (self.key_changes + 1) % 2**64)

    def license_changed(self, key_hash: str) -> None:
        """To be called after a write to the license of this key, before it is answered."""
        _MOMENT.pack_into(self._map, _MOMENTS_AT + _place_of(key_hash), self._monotonic())

    def license_busy(self, key_hash: str) -> None:
        """To be called before a call on the license of this key is queued though the ledger is there."""
        _MOMENT.pack_into(self._map, _BUSY_MOMENTS_AT + _place_of(key_hash), self._monotonic())

    def is_queued_while_busy(self, key_hash: str) -> bool:
        """Whether queued events of this license are there because it was busy, and not because the ledger was away."""
        return self._past(_BUSY_MOMENTS_AT + _place_of(key_hash)) > self.last_isolated

    def everything_changed(self) -> None:
        """To be called after an admin's change, before it is answered: it may touch any license."""
        _MOMENT.pack_into(self._map, _EVERYTHING_AT, self._monotonic())
        self.called()

    def changed_at(self, key_hash: str) -> float:
        """When (monotonic) this node last wrote what the license of this key is; 0 where it never did."""
        return max(self._past(_MOMENTS_AT + _place_of(key_hash)), self._past(_EVERYTHING_AT))

    @property
    def isolated_since(self) -> float | None:
        """Since when (monotonic) the ledger is not asked any more, because it did not answer one of the workers."""
        return self._past(_CUT_OFF_AT) or None

    @property
    def last_isolated(self) -> float:
        """When (monotonic) that began the last time, over or not; 0 where it never did."""
        return self._past(_LAST_CUT_OFF_AT)

    @property
    def called_at(self) -> float:
        """When (monotonic) one of the workers was last called; 0 where none ever was."""
        return self._past(_CALLED_AT)

    def called(self) -> None:
        """A client calls, or an admin changes something: the supervisor follows the log closely meanwhile."""
        _MOMENT.pack_into(self._map, _CALLED_AT, self._monotonic())

    def isolate(self) -> None:
        """The ledger did not answer: nobody on this node waits for it until `reconnected`."""
        with self._alone():
            if self.isolated_since is None:
                _MOMENT.pack_into(self._map, _CUT_OFF_AT, self._monotonic())
                _MOMENT.pack_into(self._map, _LAST_CUT_OFF_AT, self._monotonic())

    def reconnected(self) -> None:
        """The ledger answers, and nothing waits for it."""
        with self._alone():
            _MOMENT.pack_into(self._map, _CUT_OFF_AT, 0.0)

    @property
    def is_contradicted(self) -> bool:
        """Whether the ledger did not show what the node's copy holds, a short while ago."""
        moment = self._past(_CONTRADICTED_AT)
        return moment > 0.0 and self._monotonic() - moment < _CONTRADICTED_FOR_S

    def contradicted(self) -> None:
        """To be called when the ledger does not show what the node's copy holds, and its log does not say why."""
        _MOMENT.pack_into(self._map, _CONTRADICTED_AT, self._monotonic())

    def reconciled(self) -> None:
        """The copy is what the ledger is: it was made anew."""
        _MOMENT.pack_into(self._map, _CONTRADICTED_AT, 0.0)

    @property
    def clock_trusted_at(self) -> float:
        """When (monotonic) an operator last said that the ledger's clock is right; 0 where nobody did."""
        return self._past(_CLOCK_TRUSTED_AT)

    def trust_clock(self) -> None:
        """An operator says that the ledger's clock, or this machine's for an embedded one, is right."""
        _MOMENT.pack_into(self._map, _CLOCK_TRUSTED_AT, self._monotonic())

    @property
    def queued(self) -> int:
        """A number that rises before anything is put into the queue."""
        return int(_HEADER.unpack_from(self._map, _QUEUED_AT)[0])

    @property
    def may_hold_queued(self) -> bool:
        """Whether the queue may hold something, without a look into it."""
        return self.queued != int(_HEADER.unpack_from(self._map, _DRAINED_AT)[0])

    def will_queue(self) -> None:
        """To be called before something is put into the queue."""
        with self._alone():
            _HEADER.pack_into(self._map, _QUEUED_AT, self.queued + 1)

    def drained(self, queued: int) -> None:
        """The queue was found empty after `queued` was read."""
        with self._alone():
            _HEADER.pack_into(self._map, _DRAINED_AT, queued)

    def _past(self, offset: int) -> float:
        """The moment that stands there; 0 for one that is still to come: another boot's, whose clock had run longer."""
        moment: float = _MOMENT.unpack_from(self._map, offset)[0]
        return moment if moment <= self._monotonic() else 0.0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread and no other worker changes anything meanwhile."""
        with self._lock:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                if self._file is not None:
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def _window(self, offset: int, tag: int, window_s: float) -> tuple[float, int]:
        """When the present window of `tag` began, and the failures in it: now and none where there is none."""
        held, start, count = _SLOT.unpack_from(self._map, offset)
        now = self._monotonic()
        return (start, count) if held == tag and _is_live(start, now, window_s) else (now, 0)

    def _find(self, key: str, window_s: float) -> tuple[int, int]:
        """The slot of `key`, else a free one, else the one with the fewest failures; and the key's tag."""
        digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).digest()
        tag, home = struct.unpack("<QQ", digest)
        now = self._monotonic()
        best, fewest = 0, float("inf")
        for probe in range(_PROBES):
            offset = _OFFSET + ((home + probe) % _SLOTS) * _SLOT_SIZE
            held, start, count = _SLOT.unpack_from(self._map, offset)
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


def allocate(file: int, size: int) -> None:
    """Room for so many bytes of the open file on its disk, new ones zero. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    elif (there := os.fstat(file).st_size) < size:  # macOS has no such call
        os.pwrite(file, bytes(size - there), there)


def _open(path: Path) -> int:
    """The file, its whole length on the disk: a page for which a full disk has no room ends who touches it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size > _SIZE:
            os.ftruncate(file, _SIZE)
        allocate(file, _SIZE)
    except OSError:
        os.close(file)
        raise
    return file


def _place_of(key_hash: str) -> int:
    """Where among the moments of all licenses the one of this key is."""
    return zlib.crc32(key_hash.encode()) % _MOMENTS * _MOMENT.size
