"""Who waits for several things at once is woken by the first of them."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from failover.bell import Bell, no_line

_LONG_S = 60.0


@pytest.mark.parametrize("has_line", [False, True])
def test_a_ring_ends_the_wait_and_one_before_it_ends_it_at_once(has_line: bool) -> None:
    here, there = socket.socketpair()
    with here, there:
        bell = Bell(here.fileno if has_line else no_line)
        bell.ring()
        assert not bell.wait(_LONG_S)
        began = time.monotonic()
        threading.Timer(0.05, bell.ring).start()
        assert not bell.wait(_LONG_S)
        assert time.monotonic() - began < _LONG_S / 2


def test_word_on_the_line_is_told_and_a_wait_without_any_ends_by_itself() -> None:
    here, there = socket.socketpair()
    with here, there:
        bell = Bell(here.fileno)
        assert not bell.wait(0.01)
        there.send(b"word")
        assert bell.wait(_LONG_S)
        here.recv(4)
        assert not bell.wait(0.01)


def test_a_line_that_was_closed_is_no_word_and_is_not_waited_for() -> None:
    bell = Bell(lambda: 10**6)
    began = time.monotonic()
    assert not bell.wait(0.05)
    assert time.monotonic() - began >= 0.04
