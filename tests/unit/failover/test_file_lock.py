"""The lock whose file stays open: one at a time has it, whoever else locks that file."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout

from failover.file_lock import OpenFileLock

_AT_ONCE = {"timeout_s": 0.0, "poll_s": 0.001}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[OpenFileLock]:
    with contextlib.closing(OpenFileLock(path, **_AT_ONCE)) as lock:
        yield lock


def is_free(path: Path) -> bool:
    """To another one of its kind, and to filelock's."""
    found = []
    for other in (OpenFileLock(path, **_AT_ONCE), FileLock(path, timeout=0)):
        with contextlib.suppress(Timeout), other:
            found.append(other)
        if isinstance(other, OpenFileLock):
            other.close()
    assert len(found) in (0, 2)
    return bool(found)


def test_one_has_it_until_it_lets_go(lock: OpenFileLock, path: Path) -> None:
    for _ in range(2):
        assert is_free(path)
        with lock:
            assert not is_free(path)
    assert is_free(path)


def test_who_has_it_may_take_it_again_and_has_it_until_the_last_end(lock: OpenFileLock, path: Path) -> None:
    with lock:
        with lock:
            assert not is_free(path)
        assert not is_free(path)
    assert is_free(path)


def test_who_waits_for_too_long_is_told_and_may_try_again(lock: OpenFileLock, path: Path) -> None:
    with FileLock(path), pytest.raises(Timeout), lock:
        pass
    with lock:
        assert not is_free(path)


def test_who_waits_has_it_when_it_becomes_free(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = FileLock(path)
    held.acquire()
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        held.release()

    # The name in that module: other threads of this process go on sleeping as they did.
    monkeypatch.setattr("failover.file_lock.time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    with contextlib.closing(OpenFileLock(path, timeout_s=60, poll_s=0.5)) as lock, lock:
        assert not is_free(path)
    assert paused == [0.5]


@pytest.mark.parametrize("anew", [True, False], ids=["made anew", "gone"])
def test_a_file_that_was_moved_away_is_not_the_one_that_others_lock(lock: OpenFileLock, path: Path, anew: bool) -> None:
    with lock:
        pass
    path.rename(path.with_suffix(".moved"))
    if anew:
        path.touch()
    with lock:
        assert not is_free(path)


def test_a_descriptor_that_fails_is_given_up(lock: OpenFileLock, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with lock:
        pass
    with monkeypatch.context() as patch:
        patch.setattr("failover.file_lock.os.fstat", fails)
        with pytest.raises(OSError, match="Input/output"), lock:
            pass
    assert is_free(path)
    with lock:
        assert not is_free(path)


def test_a_link_is_not_followed(lock: OpenFileLock, path: Path) -> None:
    path.symlink_to(path.with_suffix(".other"))
    with pytest.raises(OSError), lock:
        pass
    assert not path.with_suffix(".other").exists()


def test_its_file_is_for_its_owner_only_and_closed_when_that_is_asked_for(lock: OpenFileLock, path: Path) -> None:
    with lock:
        assert path.stat().st_mode & 0o077 == 0
        assert len(_open_files(path)) == 1
    assert len(_open_files(path)) == 1
    lock.close()
    assert not _open_files(path)
    lock.close()
    with lock:
        assert not is_free(path)


def test_one_that_nobody_has_any_more_lets_go(path: Path) -> None:
    forgotten = OpenFileLock(path, **_AT_ONCE)
    forgotten.__enter__()
    assert not is_free(path)
    del forgotten
    gc.collect()
    assert is_free(path)
    assert not _open_files(path)


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    lock = OpenFileLock(tmp_path / "nowhere" / "some.lock", **_AT_ONCE)
    with pytest.raises(FileNotFoundError), lock:
        pass
    (tmp_path / "nowhere").mkdir()
    with lock:
        pass
    lock.close()


def _open_files(path: Path) -> list[Path]:
    """This process's descriptors of `path`."""
    return [descriptor for descriptor in Path("/dev/fd").iterdir() if _is(descriptor, path)]


def _is(descriptor: Path, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return descriptor.samefile(path)
    return False
