"""How the master knows that its workers live: each writes its id into a pipe, some times a second.
A worker that hangs stops writing, or says so itself; a worker that is gone is forgotten."""

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

_BEAT = struct.Struct("=i?")  # far below PIPE_BUF, so that beats of several workers never mix


class BeatPipe:
    """The pipe, made before the fork. Neither end ever blocks."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self._writing, False)

    def send(self, pid: int, *, hung: bool) -> None:
        """One beat. If the pipe is full the master is not reading, and the beat is dropped."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, _BEAT.pack(pid, hung))

    def receive(self) -> list[tuple[int, bool]]:
        """All beats that wait: (process id, hung)."""
        try:
            return list(_BEAT.iter_unpack(os.read(self.reading, _BEAT.size * 4096)))
        except BlockingIOError:
            return []


@dataclass(slots=True)
class _Worker:
    seen: float
    hung: bool


class Pulse:
    """When each worker last beat. Times are monotonic seconds, passed in."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._workers: dict[int, _Worker] = {}
        self._looked: float | None = None

    def record(self, beats: list[tuple[int, bool]], now: float) -> None:
        """Note the beats that have come in."""
        for pid, hung in beats:
            self._workers[pid] = _Worker(now, hung)

    def hung(self, now: float) -> list[int]:
        """The workers to be killed: silent too long, or hung by their own account.

        If this was not called for a second, it is the master (or the whole host) that stood still, and the silence
        proves nothing: every worker is given a new start.
        """
        stood_still = self._looked is not None and now - self._looked > max(1.0, self._timeout / 2)
        self._looked = now
        if stood_still:
            for worker in self._workers.values():
                worker.seen = now
        return [pid for pid, worker in self._workers.items() if worker.hung or now - worker.seen > self._timeout]

    def keep(self, is_ours: Callable[[int], bool]) -> int:
        """Forget the workers that are gone; how many there are."""
        self._workers = {pid: worker for pid, worker in self._workers.items() if is_ours(pid)}
        return len(self._workers)
