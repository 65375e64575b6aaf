"""Threads that wait for work: called again where they are free, made where none is, and ended where nobody calls."""

from __future__ import annotations

import threading

import pytest

from api.server.threads import Threads

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


def test_where_none_is_free_there_is_another_one() -> None:
    threads, held = Threads("t"), Held()
    assert all(threads.run(held) for _ in range(3))
    assert all(held.began.acquire(timeout=_S) for _ in range(3))
    held.go.release(3)
    until_free(threads, 3)
    assert len(set(held.threads)) == 3


def test_the_thread_that_became_free_last_is_called_first() -> None:
    threads, held = Threads("t"), Held()
    for _ in range(5):
        assert threads.run(held)
        held.go.release()
        until_free(threads, 1)
    assert len(set(held.threads)) == 1


def test_a_thread_that_nobody_calls_ends() -> None:
    threads, held = Threads("nobody-calls", idle_s=0.01), Held()
    for _ in range(3):
        assert threads.run(held)
        held.go.release()
        while any(thread.name == "nobody-calls" for thread in threading.enumerate()):
            pass
    assert len(held.threads) == 3
    assert threads._free == []


def test_work_that_fails_ends_no_thread() -> None:
    threads, held = Threads("t"), Held()

    def fail() -> None:
        raise SystemExit

    assert threads.run(fail)
    until_free(threads, 1)
    assert threads.run(held)
    held.go.release()


def test_a_system_without_another_thread_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, held = Threads("t"), Held()

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        assert not threads.run(held)
    assert threads.run(held)
    held.go.release()
