"""When a statement that takes too long is ended, and how soon that is looked at again."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from failover.watchdog import Watchdog


class Waiting:
    """A connection, as far as a watchdog knows it, whose server says nothing."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    def fileno(self) -> int:
        return self._ours.fileno()

    def answer(self) -> None:
        self._theirs.send(b"x")

    def read(self) -> None:
        self._ours.recv(1)

    @property
    def is_shut(self) -> bool:
        try:
            return self._ours.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def test_what_is_overdue_is_ended_and_nothing_else() -> None:
    watchdog = Watchdog()
    with contextlib.closing(Waiting()) as short, contextlib.closing(Waiting()) as long:
        with watchdog.guard(short, 1_000), watchdog.guard(long, 3_000):
            watchdog.end_overdue(time.monotonic() + 2_000)
            assert (short.is_shut, long.is_shut) == (True, False)
        watchdog.end_overdue(time.monotonic() + 4_000)
        assert not long.is_shut, "its block had ended"


def test_it_is_looked_at_again_when_the_next_one_is_due_and_a_tenth_of_a_second_from_now_at_most() -> None:
    watchdog = Watchdog()
    assert watchdog.end_overdue(0.0) == 0.1
    with contextlib.closing(Waiting()) as connection, watchdog.guard(connection, 1_000):
        due = watchdog._watched[0][0]
        assert watchdog.end_overdue(due - 5) == 0.1
        assert watchdog.end_overdue(due - 0.03) == pytest.approx(0.03)
        assert not connection.is_shut
        assert watchdog.end_overdue(due) == 0.1
        assert connection.is_shut


def test_an_answer_that_has_arrived_waits_for_its_thread_to_have_its_turn() -> None:
    watchdog = Watchdog()
    with contextlib.closing(Waiting()) as connection, watchdog.guard(connection, 1_000):
        connection.answer()
        assert watchdog.end_overdue(time.monotonic() + 2_000) == 0.1
        connection.read()
        assert not connection.is_shut
        watchdog.end_overdue(time.monotonic() + 2_000)
        assert connection.is_shut, "half an answer is none"


def test_time_in_which_this_process_did_not_run_is_not_counted() -> None:
    watchdog = Watchdog()
    with contextlib.closing(Waiting()) as connection, watchdog.guard(connection, 1_000):
        watchdog.forgive(500)
        watchdog.end_overdue(time.monotonic() + 1_400)
        assert not connection.is_shut
        watchdog.end_overdue(time.monotonic() + 1_600)
        assert connection.is_shut
