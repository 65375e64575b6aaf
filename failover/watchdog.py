"""Ends a statement on a server that is frozen but whose host still acknowledges TCP.

Neither keepalives nor `tcp_user_timeout` end such a wait, and the driver has no time limit of its own: the socket
is shut down from another thread, and the waiting one gets an ordinary connection error.

A machine that is overloaded is no frozen server: time in which this process did not get to run is not counted, and an
answer that has arrived is waited for until its thread has had its turn.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2

_TICK_S = 0.1
#: So long without anything to watch, and the thread ends.
_IDLE_S = 60.0


class Watchdog:
    """Watches any number of statements with one thread, which ends some time after the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[float, Any]] = {}
        self._tickets = itertools.count()
        self._thread: threading.Thread | None = None
        # Set for a thread that rests: where statements follow each other, none of them has to wake it.
        self._called, self._rests = threading.Event(), False
        self._called_at = 0.0

    @contextlib.contextmanager
    def guard(self, connection: Any, seconds: float) -> Iterator[None]:
        """Shuts `connection`'s socket (a psycopg2 connection) down if the block takes longer than `seconds`."""
        ticket = next(self._tickets)
        with self._lock:
            self._watched[ticket] = (time.monotonic() + seconds, connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
            elif self._rests and not self._called.is_set():
                self._called_at = time.monotonic()
                self._called.set()
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(ticket, None)

    def end_overdue(self, now: float) -> float:
        """Shuts down what is overdue at `now` (monotonic) and has no answer that only has to be read.

        Gives for how many seconds there is no need to look again.

        That is a tenth at most: no guard that is added meanwhile has a shorter limit.
        """
        with self._lock:
            for ticket in [t for t, (deadline, _) in self._watched.items() if now >= deadline]:
                # Under the lock: the block cannot end, and its descriptor be used again, meanwhile.
                if not _has_answer(self._watched[ticket][1]):
                    _shut_down(self._watched.pop(ticket)[1])
            return min([_TICK_S, *(deadline - now for deadline, _ in self._watched.values() if deadline > now)])

    def forgive(self, seconds: float) -> None:
        """Gives all that is watched so much more time: this process did not get to run meanwhile."""
        if seconds > 0:
            with self._lock:
                watched = self._watched.items()
                self._watched = {ticket: (deadline + seconds, one) for ticket, (deadline, one) in watched}

    def _watch(self) -> None:
        while self._has_work():
            rest_s = self.end_overdue(time.monotonic())
            due = time.monotonic() + rest_s
            time.sleep(rest_s)
            self.forgive(time.monotonic() - due)

    def _has_work(self) -> bool:
        """Waits for something to watch; False where nothing has come for a while, and this thread ends."""
        with self._lock:
            if self._watched:
                return True
            self._called.clear()
            self._rests = True
        if self._called.wait(_IDLE_S):
            self.forgive(time.monotonic() - self._called_at)
        with self._lock:
            self._rests = False
            if not self._watched and not self._called.is_set():
                self._thread = None
                return False
            return True


def _has_answer(connection: Any) -> bool:
    """Whether something has arrived on `connection` that its thread has not read yet."""
    with contextlib.suppress(OSError, ValueError, psycopg2.Error):
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return False


def _shut_down(connection: Any) -> None:
    # One that is closed already has no descriptor any more: there is nothing left to end.
    with contextlib.suppress(OSError, ValueError, psycopg2.Error):
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.close()
