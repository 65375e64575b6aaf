"""What a node's machine has of its own: a wall clock that can be set, and a small disk that can be full."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

_SHIFT = struct.Struct("<q")
_BLOCK = 64 * 1024
_DISK_MB = 48


class WallClock:
    """The wall clock of the processes that get `env`: `shift` sets it so many seconds ahead, for all of them at once.

    Their calls for the time go through a library of ours (clock.c), as libfaketime does it. The monotonic clock is
    not touched.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(_SHIFT.pack(0))
        self.env = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}

    def shift(self, seconds: int) -> None:
        # In place: the processes have this very file mapped.
        with self._file.open("r+b") as file:
            file.write(_SHIFT.pack(seconds))


def clock_library(folder: Path) -> Path | None:
    """The library, compiled into `folder`; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    if library.exists():  # processes have it mapped
        return library
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class SmallDisk:
    """A disk of a few megabytes at `folder`, which only root can make."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        size = f"size={_DISK_MB}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True, capture_output=True)
        self.folder = folder
        self._ballast = folder / "ballast"

    @staticmethod
    def can_be_made() -> bool:
        return os.geteuid() == 0 and shutil.which("mount") is not None

    def fill(self) -> None:
        """Not a byte is left."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(_BLOCK)) == _BLOCK:
                    pass
                while file.write(b"\0"):
                    pass
            except OSError:
                return

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def read_only(self, yes: bool) -> None:
        """From now on nothing can be written, or it can again. Nobody may have a file open for writing."""
        options = f"remount,{'ro' if yes else 'rw'}"
        subprocess.run(["mount", "-o", options, self.folder], check=True, capture_output=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True, capture_output=True)
