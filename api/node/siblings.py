"""The processes that another WSGI server makes of one node: they are one instance, and the last of them resigns.

A server may end a process after so many requests and start another. The one that supervised then leaves the lease to
its siblings, one of which goes on with it: were each an instance of its own, every such end would be a failover.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path

from filelock import FileLock

from api import logs
from api.ids import new_id

_log = logs.get("siblings")

#: Locked, shared, by each process for as long as it lives; its text is the instance.
_ALIVE_NAME = "processes-{node}.lock"
#: Locked while a process finds out whether it is the first.
_JOINING_NAME = "processes-joining.lock"
_LOOK_S = 0.02


class Siblings:
    """This process's place among them. A folder that takes nothing makes it the only one."""

    def __init__(self, folder: Path, node: str) -> None:
        """`node`: the node's name, should another have been given the same folder."""
        self._file: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / _JOINING_NAME, mode=0o600):
                alive = folder / _ALIVE_NAME.format(node=hashlib.sha256(node.encode()).hexdigest()[:8])
                self._file = os.open(alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self.instance = self._joined(self._file)
        except OSError as error:
            _log.warning("this process knows no siblings", extra={"reason": str(error)})
            self.instance = new_id()

    def leave(self, patience_s: float = 0.0) -> bool:
        """Whether no sibling is left. They have `patience_s` to leave too: a server often ends them all at once."""
        if self._file is None:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        until = time.monotonic() + patience_s
        while not (alone := _is_alone(self._file)) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        os.close(self._file)
        self._file = None
        return alone

    @staticmethod
    def _joined(file: int) -> str:
        first = _is_alone(file)
        instance = "" if first else os.pread(file, 100, 0).decode("ascii", "replace")
        if first or not instance:
            instance = new_id()
            os.ftruncate(file, 0)
            os.pwrite(file, instance.encode(), 0)
        fcntl.flock(file, fcntl.LOCK_SH)
        return instance


def _is_alone(file: int) -> bool:
    """Whether no other process has it locked. If so it is locked now, for this one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
