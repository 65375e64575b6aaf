"""A lock between the processes of one node, for what is locked thousands of times a second."""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path

from filelock import Timeout, lock_descriptor, unlock_descriptor


class OpenFileLock:
    """As `filelock.FileLock`, which may lock the same file, and which opens it anew each time: 50 µs against 3.

    Reentrant, and for one thread at a time. A process that is forked must not take it along open: the two would hold
    it together.
    """

    def __init__(self, path: Path, *, timeout_s: float, poll_s: float) -> None:
        """`timeout_s`: how long it is waited for at most; `poll_s`: how often it is asked for meanwhile."""
        self._path = path
        self._timeout_s, self._poll_s = timeout_s, poll_s
        self._depth = 0
        self._file: _File | None = None

    def __enter__(self) -> None:
        """Raises `filelock.Timeout`, and `OSError` where the file cannot be opened."""
        if not self._depth:
            self._acquire(time.monotonic() + self._timeout_s)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth and self._file is not None:
            unlock_descriptor(self._file.descriptor)

    def close(self) -> None:
        """Closes the file; whoever takes the lock next opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _acquire(self, until: float) -> None:
        while True:
            if self._file is None:
                self._file = _File(self._path)
            if not lock_descriptor(self._file.descriptor, blocking=False):
                if time.monotonic() > until:
                    raise Timeout(str(self._path))
                time.sleep(self._poll_s)
            elif os.fstat(self._file.descriptor).st_nlink:
                return
            else:
                self.close()  # it was removed: others lock the one that has its name now


class _File:
    """One that is open until `close`, or until nobody has it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.close = weakref.finalize(self, os.close, self.descriptor)
