"""A file of fixed size that the processes of one node map into memory, and where in it everything is.

Workers come and go and any WSGI server may have made them, so this is a mapped file and not inherited memory. It
holds nothing that must survive: a damaged or missing file is made anew.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

#: How often a process asks for the lock while another has it, for a few microseconds.
_LOCK_POLL_S = 0.001
_NUMBER = struct.Struct("<Q")
_MOMENT = struct.Struct("<d")
MOMENT_SIZE = _MOMENT.size

# The layout, in bytes from the start. Processes of two releases may share a file during a deploy: nothing moves.
#: `ChangeMarks`: how often license keys were made; when everything changed.
KEY_CHANGES_AT, EVERYTHING_CHANGED_AT = 0, 8
#: `LedgerBreaker`: since when it is open (0: closed); how often something was queued, and of that found drained.
ISOLATED_AT, QUEUED_AT, DRAINED_AT = 16, 24, 32
#: `LedgerBreaker`: when it opened the last time, closed again or not; the last contradiction; the clock trusted.
LAST_ISOLATED_AT, CONTRADICTED_AT, CLOCK_TRUSTED_AT = 40, 48, 56
#: `FailureCounts`: a table of slots.
SLOTS_AT, SLOT_SIZE, SLOTS = 64, 24, 16_384
#: `ChangeMarks`: a moment for each license key's hash; keys that share a place share the moment.
MOMENTS = 8_192
LICENSES_CHANGED_AT = SLOTS_AT + SLOTS * SLOT_SIZE
#: `ChangeMarks`: when a client last called.
CALLED_AT = LICENSES_CHANGED_AT + MOMENTS * MOMENT_SIZE
#: `LedgerBreaker`: as for `LICENSES_CHANGED_AT`, when a call was last queued because its license was busy.
LICENSES_BUSY_AT = CALLED_AT + MOMENT_SIZE
SIZE = LICENSES_BUSY_AT + MOMENTS * MOMENT_SIZE


class MappedFile:
    """The mapping, its one lock, and the moments (monotonic seconds) and numbers that stand in it."""

    def __init__(self, path: Path | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError where the disk does not take the file; `path` None: memory of this process alone."""
        self.monotonic = monotonic
        self._file = None if path is None else _open(path)
        self.memory = mmap.mmap(-1 if self._file is None else self._file, SIZE)
        self._lock = threading.Lock()

    def move_to(self, path: Path) -> None:
        """Maps the node's file in place of this process's own memory, whose contents are dropped. Raises OSError."""
        file = _open(path)
        with self._lock:
            self.memory, self._file = mmap.mmap(file, SIZE), file

    @property
    def is_shared(self) -> bool:
        """Whether the other processes of this node have it too."""
        return self._file is not None

    def moment(self, offset: int) -> float:
        """The moment that stands there; 0 for one that is still to come: another boot's, whose clock had run longer."""
        moment: float = _MOMENT.unpack_from(self.memory, offset)[0]
        return moment if moment <= self.monotonic() else 0.0

    def mark(self, offset: int) -> None:
        """Writes the present moment there."""
        _MOMENT.pack_into(self.memory, offset, self.monotonic())

    def clear(self, offset: int) -> None:
        """Writes that there was no such moment."""
        _MOMENT.pack_into(self.memory, offset, 0.0)

    def number(self, offset: int) -> int:
        return int(_NUMBER.unpack_from(self.memory, offset)[0])

    def set_number(self, offset: int, number: int) -> None:
        _NUMBER.pack_into(self.memory, offset, number % 2**64)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """No other thread and no other process that asks for the same changes anything meanwhile."""
        with self._lock:
            if self._file is not None:
                lock_descriptor(self._file, poll_interval=_LOCK_POLL_S)
            try:
                yield
            finally:
                if self._file is not None:
                    unlock_descriptor(self._file)


def allocate(file: int, size: int) -> None:
    """Room for so many bytes of the open file on its disk, new ones zero. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    elif (there := os.fstat(file).st_size) < size:  # macOS has no such call
        os.pwrite(file, bytes(size - there), there)


def _open(path: Path) -> int:
    """The file, its whole length on the disk: touching a page for which a full disk has no room ends a process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size > SIZE:
            os.ftruncate(file, SIZE)
        allocate(file, SIZE)
    except OSError:
        os.close(file)
        raise
    return file
