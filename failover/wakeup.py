"""Waits for what comes first: another thread, a notification of the database, or a deadline."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable


def no_channel() -> int | None:
    """For one who waits for no word from outside."""
    return None


class Wakeup:
    """One thread waits, any thread wakes it. `line`: the descriptor on which a notification may come; None: none."""

    def __init__(self, line: Callable[[], int | None] = no_channel) -> None:
        self._line = line
        self._rung = threading.Event()
        self._lock = threading.Lock()
        self._waiter: socket.socket | None = None

    def ring(self) -> None:
        """Ends the wait that is under way, or the next one."""
        self._rung.set()
        with self._lock:
            if self._waiter is not None:
                self._waiter.send(b"\0")
                self._waiter = None

    def wait(self, seconds: float) -> bool:
        """Waits at most so long; gives whether a notification has come on the line, which the caller then reads."""
        line = self._line()
        if line is None:
            self._rung.wait(seconds)
            self._rung.clear()
            return False
        with contextlib.ExitStack() as ends:
            here, there = (ends.enter_context(end) for end in socket.socketpair())
            with self._lock:
                self._waiter = there
            try:
                ready = _ready(here, line, 0.0 if self._rung.is_set() else max(0.0, seconds))
            finally:
                with self._lock:
                    self._waiter = None
                self._rung.clear()
        return ready


def _ready(here: socket.socket, line: int, seconds: float) -> bool:
    """Whether `line` has something to read, as soon as it or `here` has, or after so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(here, selectors.EVENT_READ)
        with contextlib.suppress(OSError, ValueError):  # it was closed in this very moment
            selector.register(line, selectors.EVENT_READ)
        return any(key.fileobj == line for key, _ in selector.select(seconds))
