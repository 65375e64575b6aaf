"""Threads that wait for work: called again where they are free, and none more than the limit."""

from __future__ import annotations

import threading

import pytest

from api.threads import Threads

_S = 30.0


class Held:
    """Work that is under way until the test lets it go."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.threads: list[str] = []

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name + str(threading.get_ident()))
        self.began.release()
        assert self.go.acquire(timeout=_S)


def until_free(threads: Threads, count: int) -> None:
    while len(threads._free) != count:
        pass


def test_work_for_which_no_thread_is_free_is_refused() -> None:
    threads, held = Threads("t", 2), Held()
    assert [threads.run(held) for _ in range(3)] == [True, True, False]
    held.go.release(2)
    until_free(threads, 2)
    assert threads.run(held)
    held.go.release()


def test_the_thread_that_became_free_last_is_called_first() -> None:
    threads, held = Threads("t"), Held()
    for _ in range(5):
        assert threads.run(held)
        held.go.release()
        until_free(threads, 1)
    assert len(set(held.threads)) == 1


def test_a_thread_that_nobody_calls_ends_and_another_one_comes() -> None:
    threads, held = Threads("t", 1, idle_s=0.01), Held()
    for _ in range(3):
        while not threads.run(held):
            pass
        held.go.release()
        while threads._count:
            pass
    assert len(held.threads) == 3


def test_work_that_fails_ends_no_thread() -> None:
    threads, held = Threads("t", 1), Held()

    def fail() -> None:
        raise SystemExit

    assert threads.run(fail)
    until_free(threads, 1)
    assert threads.run(held)
    held.go.release()


def test_a_system_without_another_thread_is_said_and_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, held = Threads("t", 1), Held()

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        assert not threads.run(held)
    assert threads.run(held)
    held.go.release()
