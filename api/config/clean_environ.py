"""Secrets leave the environment once they are read, and on Linux what `/proc/<pid>/environ` shows of it as well.

That file shows the memory in which the kernel handed the environment over: to take a variable out changes nothing
there, and whatever is forked shows it again. So the values are overwritten where they stand, before anything is forked.
A shell in front of the server goes on showing what it was given, and a process's memory holds its secrets all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

#: The places of env_start and env_end in proc_pid_stat(5), counted behind the name of the program.
_ENV_START, _ENV_END = 47, 48


def forget(names: Iterable[str]) -> None:
    """Takes `names` out of the environment of this process, and of all that it forks or starts from now on."""
    listed = tuple(names)
    for name in listed:
        os.environ.pop(name, None)
    try:
        _overwrite(frozenset(map(os.fsencode, listed)))
    except OSError:
        return  # no Linux, or one that lets no process write its own memory


def _overwrite(names: frozenset[bytes]) -> None:
    """Raises OSError. To be called when nothing points to the values any more."""
    start, end = _bounds()
    # Not by address: where a container's kernel names another place than its own, this fails and that would crash.
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(start)
        for at, length in values_of(names, memory.read(end - start)):
            memory.seek(start + at)
            memory.write(bytes(length))


def _bounds() -> tuple[int, int]:
    """Where the kernel put the environment of this process. Raises OSError."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    if len(fields) <= _ENV_END or not 0 < int(fields[_ENV_START]) < int(fields[_ENV_END]):
        raise OSError("the kernel does not say where the environment is")
    return int(fields[_ENV_START]), int(fields[_ENV_END])


def values_of(names: frozenset[bytes], block: bytes) -> Iterator[tuple[int, int]]:
    """The places of the values of `names` in a block of `NAME=value`, each ended by NUL, and their lengths. Pure."""
    at = 0
    for entry in block.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name in names:
            yield at + len(name) + 1, len(value)
        at += len(entry) + 1
