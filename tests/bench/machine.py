"""What the machine is and what it does: its parts, its disk's fsync, and what processes take of CPU and memory."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import psutil

_PAGE = b"\0" * 8192


def describe() -> str:
    """The CPU's model, the cores this process may use, the kernel and Python."""
    cores = len(psutil.Process().cpu_affinity())
    kernel = f"{platform.system()} {platform.release()}"
    return f"{_cpu_model()}, {cores} cores, {kernel}, Python {platform.python_version()}"


def fsync_ms(directory: Path, times: int) -> float:
    """The median milliseconds of `fdatasync` after a page's write over an existing file, as a log's commit does it."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(_PAGE * 64)
        file.flush()
        os.fsync(file.fileno())
        return statistics.median(_synced_write(file.fileno(), i % 64) for i in range(times)) * 1000


def _synced_write(file: int, page: int) -> float:
    began = time.perf_counter()
    os.pwrite(file, _PAGE, page * len(_PAGE))
    os.fdatasync(file)
    return time.perf_counter() - began


class Tree:
    """A process and all below it."""

    def __init__(self, process: psutil.Process) -> None:
        self._first = process

    def cpu_s(self) -> float:
        """User and system time of all that run, and of those that have ended and were waited for."""
        return sum(map(_cpu_s, self._all()))

    def pss_mb(self) -> float:
        """The memory of all, with what several share counted once between them (Linux; elsewhere resident)."""
        return sum(map(_pss, self._all())) / 1e6

    @staticmethod
    def own_pss_mb(process: psutil.Process) -> float:
        """The memory of one process, with its part of what it shares."""
        return _pss(process) / 1e6

    def _all(self) -> list[psutil.Process]:
        return [self._first, *self._first.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    # Postgres ends a process of its own now and then: between the list and the look, its parent counts it.
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(sum(process.cpu_times()[:4]))
    return 0.0


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return int(process.memory_info().rss)


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
