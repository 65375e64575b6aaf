"""Threads that wait for work: one that has just become free is the first to be called again, and idle ones end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

Work = Callable[[], None]


class _IdleThread:
    """Where one thread waits. A bare lock, taken: releasing it wakes the thread. An Event costs ten times as much."""

    __slots__ = ("wakeup", "work")

    def __init__(self) -> None:
        self.work: Work | None = None
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class Threads:
    """Threads that are made when they are needed, and end with their process whatever they do."""

    def __init__(self, name: str, *, idle_s: float = 10.0) -> None:
        """One that has been without work for `idle_s` seconds ends."""
        self._name = name
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._free: list[_IdleThread] = []

    def run(self, work: Work) -> bool:
        """Has a thread do `work`, now; False where none is free and the system gives no more."""
        with self._lock:
            if self._free:
                idle = self._free.pop()
                idle.work = work
                idle.wakeup.release()
                return True
        try:
            threading.Thread(target=self._live, args=(work,), name=self._name, daemon=True).start()
        except RuntimeError:
            return False
        return True

    def _live(self, work: Work | None) -> None:
        idle = _IdleThread()
        while work is not None:
            try:
                work()
            except BaseException:
                _log.exception("a thread's work failed")
            work = self._next(idle)

    def _next(self, idle: _IdleThread) -> Work | None:
        """What this thread is called for; None where it is not needed any more."""
        with self._lock:
            self._free.append(idle)
        if not idle.wakeup.acquire(timeout=self._idle_s):
            with self._lock:
                if idle in self._free:
                    self._free.remove(idle)
                    return None
            idle.wakeup.acquire()  # called in the same instant
        work, idle.work = idle.work, None
        return work
