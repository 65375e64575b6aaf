"""The wall clock and the small disk of the chaos runs do to a process what they say."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.cluster.machine import SmallDisk, WallClock, clock_library
from tests.support.processes import until

_ASKS = """
import sys, time
from datetime import UTC, datetime
for _ in sys.stdin:
    print(time.time(), datetime.now(UTC).timestamp(), time.monotonic(), flush=True)
"""


def test_a_wall_clock_that_is_set_is_set_for_running_processes_and_the_monotonic_one_is_not(tmp_path: Path) -> None:
    library = clock_library(tmp_path)
    if library is None:
        pytest.skip("there is no C compiler")
    clock = WallClock(tmp_path, library)
    with subprocess.Popen(
        [sys.executable, "-c", _ASKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.env},
    ) as process:

        def asked() -> list[float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return [float(told) for told in process.stdout.readline().split()]

        before = asked()
        clock.shift(-3_700)
        set_back = asked()
        clock.shift(0)
        after = asked()
        assert process.stdin is not None
        process.stdin.close()
    for wall in (0, 1):
        assert before[wall] - 3_700 <= set_back[wall] < before[wall] - 3_000
        assert after[wall] >= before[wall]
    assert before[2] <= set_back[2] <= after[2] < before[2] + 600


def test_a_small_disk_is_full_until_it_is_emptied(tmp_path: Path) -> None:
    if not SmallDisk.can_be_made():
        pytest.skip("only root can make a small disk")
    disk = SmallDisk(tmp_path / "disk")
    try:
        disk.fill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (disk.folder / "more").write_bytes(bytes(8192))
        disk.empty()
        until(lambda: (disk.folder / "more").write_bytes(bytes(8192)), "room")
    finally:
        disk.close()
