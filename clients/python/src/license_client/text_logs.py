"""The three log files in the temporary folder: a line each time, `UTC time <tab> server <tab> reason`. No key, ever."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from license_client.result import timestamp

USED = "license_server_used.txt"
FAILOVER = "license_server_failover.txt"
OFFLINE = "license_offline_success.txt"

#: A file that has grown beyond this many bytes is begun anew; the last one stays beside it as `.old`.
LIMIT = 1_000_000

#: Without blocking: a FIFO under a log's name, in a folder that is everybody's, would hold the program up for ever.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class TextLogs:
    """Writes them. A folder that cannot be written changes no verdict."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now

    def used(self, server: str, reason: str) -> None:
        """A server decided."""
        self._line(USED, server, reason)

    def failover(self, server: str, reason: str) -> None:
        """A server did not decide, and the next one is asked."""
        self._line(FAILOVER, server, reason)

    def offline(self, reason: str) -> None:
        """The saved token decided that the program may run."""
        self._line(OFFLINE, "offline", reason)

    def _line(self, name: str, server: str, reason: str) -> None:
        path = self._folder / name
        at = timestamp(datetime.fromtimestamp(self._now(), UTC))
        with contextlib.suppress(OSError):
            if path.exists() and path.stat().st_size > LIMIT:
                path.replace(path.with_suffix(".old"))
            # The temporary folder is everybody's: a link that another user has laid there is not followed.
            with os.fdopen(os.open(path, _FLAGS, 0o600), "a", encoding="utf-8") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    file.write(f"{at}\t{server}\t{reason}\n")
