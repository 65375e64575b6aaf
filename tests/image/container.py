"""Runs a command in the files of an image: as its process 1, as its user, on a root that is read-only."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.processes import ServerProcess, until


@contextlib.contextmanager
def running(
    root: Path, command: Sequence[str], *, user: int, environ: Mapping[str, str], port: int, disk: Path | None = None
) -> Iterator[ServerProcess]:
    """`command` in `root`; `disk` becomes its `/app/data`, else nothing but `/tmp` can be written.

    `environ` is its whole environment. The process that is given is the one outside; `process_1` has the one inside.
    """
    script = "\n".join([*_mounts(root, disk), _enter(root, command, user, environ)])
    outside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]
    with ServerProcess(outside, {}, port=port, cwd=Path("/")) as server:
        yield server


def process_1(server: ServerProcess) -> psutil.Process:
    """The process that is number 1 inside."""
    found = until(server.process.children, "process 1")
    return found[0]


def _mounts(root: Path, disk: Path | None) -> list[str]:
    own = [] if disk is None else [f"mount --bind {disk} {root}/app/data"]
    return [
        "mount --make-rprivate /",
        f"mount --bind {root} {root}",
        f"mount -o remount,bind,ro {root}",
        f"mount -t proc proc {root}/proc",
        f"mount --rbind /dev {root}/dev",
        f"mount -t tmpfs tmpfs {root}/tmp",
        *own,
    ]


def _enter(root: Path, command: Sequence[str], user: int, environ: Mapping[str, str]) -> str:
    settings = [f"{name}={value}" for name, value in environ.items()]
    inside = ["/usr/bin/env", "-i", "--chdir=/app", *settings, *command]
    return f"exec chroot --userspec={user}:{user} {root} {shlex.join(inside)}"
