"""Files of the command line: written whole, new, and for their owner only where the system knows how."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from license_admin.errors import Misused

_CHUNK = 64 * 1024


@contextlib.contextmanager
def new_private_file(path: Path) -> Iterator[TextIO]:
    """A new file (mode 0600; on Windows with the rights of its folder). An older one is never written over."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise Misused(f"{path} exists already and is left as it is; name a new file") from None
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror or error}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as opened:
        yield opened


def flush(file: TextIO) -> None:
    """Has on the disk what was written so far."""
    file.flush()
    os.fsync(file.fileno())


def read_bytes(path: str) -> bytes:
    """The file's content, `-` being standard input. Raises `Misused`."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror or error}") from error


def read_text(path: str) -> str:
    """The same as text in UTF-8, with or without a mark. Raises `Misused`."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misused(f"{path} is not UTF-8 text") from None


class Spool:
    """What is downloaded, until it is whole: half an export looks like a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tail = b""

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._tail = (self._tail + chunk)[-400:]

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._tail = b""

    @property
    def is_broken_off(self) -> bool:
        """Whether the server says in the last line that more was to come."""
        last = self._tail.rstrip(b"\n").rpartition(b"\n")[2]
        return last.startswith((b'"INCOMPLETE:', b'{"incomplete"'))

    def copy_to(self, write: Callable[[bytes], object]) -> None:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            write(chunk)


@contextlib.contextmanager
def spool() -> Iterator[Spool]:
    with tempfile.TemporaryFile() as file:
        yield Spool(file)
