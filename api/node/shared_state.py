"""What the processes of one node share in memory: failure counts, change marks and the ledger's circuit breaker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from api import logs
from api.node.change_marks import ChangeMarks
from api.node.failure_counts import FailureCounts
from api.node.ledger_breaker import LedgerBreaker
from api.node.mapped_file import MappedFile

#: The file's name in `DATA_DIR`.
STATE_NAME = "shared-state.bin"

_log = logs.get("node")


class SharedState:
    """The parts over one mapped file; who needs one of them takes that one."""

    def __init__(self, path: Path | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError where the disk does not take the file; `path` None: this process's alone."""
        self._file = MappedFile(path, monotonic)
        self.failures = FailureCounts(self._file)
        self.changes = ChangeMarks(self._file)
        self.breaker = LedgerBreaker(self._file)

    def move_to(self, path: Path) -> None:
        """What was this process's alone is the node's from now on, its counts begun anew. Raises OSError."""
        self._file.move_to(path)
        # What was written before is not marked there: nothing that was copied until now is newer for certain.
        self.changes.everything_changed()

    @property
    def is_shared(self) -> bool:
        """Whether the other processes of this node have it too."""
        return self._file.is_shared


def open_shared_state(folder: Path) -> SharedState:
    """What this node's processes share in `folder`; a state of this process alone where that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return SharedState(folder / STATE_NAME)
    except OSError as error:
        _log.error("DATA_DIR takes nothing: this node goes by the ledger alone", extra={"reason": str(error)})
        return SharedState(None)
