"""Who waits for several things at once is woken by the first of them."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from failover.wakeup import Wakeup, no_channel

_LONG_S = 60.0


@pytest.mark.parametrize("has_line", [False, True])
def test_a_ring_ends_the_wait_and_one_before_it_ends_it_at_once(has_line: bool) -> None:
    here, there = socket.socketpair()
    with here, there:
        wakeup = Wakeup(here.fileno if has_line else no_channel)
        wakeup.ring()
        assert not wakeup.wait(_LONG_S)
        began = time.monotonic()
        threading.Timer(0.05, wakeup.ring).start()
        assert not wakeup.wait(_LONG_S)
        assert time.monotonic() - began < _LONG_S / 2


def test_word_on_the_line_is_told_and_a_wait_without_any_ends_by_itself() -> None:
    here, there = socket.socketpair()
    with here, there:
        wakeup = Wakeup(here.fileno)
        assert not wakeup.wait(0.01)
        there.send(b"word")
        assert wakeup.wait(_LONG_S)
        here.recv(4)
        assert not wakeup.wait(0.01)


def test_a_line_that_was_closed_is_no_word_and_is_not_waited_for() -> None:
    wakeup = Wakeup(lambda: 10**6)
    began = time.monotonic()
    assert not wakeup.wait(0.05)
    assert time.monotonic() - began >= 0.04
