"""Group commit: one flush for all who wait, and every caller is told its own result or the error, once."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from api.checks.batcher import BacklogFull, Batcher, FlushTimeout, identity

_S = 30.0


class Desk:
    """A flush that the test holds up: each batch waits until `let_go` has been called once more."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.arrived = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self.error: BaseException | None = None

    def flush(self, items: list[Any]) -> Sequence[Any]:
        self.batches.append(items)
        self.arrived.release()
        assert self._go.acquire(timeout=_S)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return [item * 10 for item in items]

    def let_go(self, batches: int = 1) -> None:
        self._go.release(batches)


class Fatal(Exception):
    pass


class Stage:
    """A batcher on a desk, and callers on threads."""

    def __init__(self, **options: Any) -> None:
        self.desk = Desk()
        limits = {"max_batch": 64, "max_waiting": 512, "patience_s": _S, "fails_backlog": Fatal, **options}
        self.batcher: Batcher[int, int] = Batcher(self.desk.flush, **limits)
        self.told: dict[int, list[Any]] = {}

    def call(self, *items: int, finish: Callable[[int], int] = identity) -> list[Future[int]]:
        """Begins one after the other; the first is on its way before the next comes."""
        calls = []
        for item in items:
            calls.append(told := self.begin(item, finish))
            while not self.desk.batches and not told.done():
                pass
        return calls

    def begin(self, item: int, finish: Callable[[int], int] = identity) -> Future[int]:
        """What it is told, as a future; and in `told` all that it ever was."""
        future: Future[int] = Future()
        outcomes = self.told[item] = []

        def done(outcome: int | BaseException) -> None:
            outcomes.append(outcome)
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.batcher.begin(item, finish, done)
        return future


def test_one_caller_pays_one_flush() -> None:
    stage = Stage()
    stage.desk.let_go(2)
    assert stage.batcher.submit(1, identity) == 10
    assert stage.batcher.submit(2, identity) == 20
    assert stage.desk.batches == [[1], [2]]


def test_all_who_come_during_a_flush_share_the_next_one() -> None:
    stage = Stage()
    calls = stage.call(1, 2, 3, 4)
    stage.desk.let_go(2)
    assert [call.result(_S) for call in calls] == [10, 20, 30, 40]
    assert stage.desk.batches == [[1], [2, 3, 4]]


def test_a_batch_is_bounded_and_the_rest_goes_in_the_next() -> None:
    stage = Stage(max_batch=2)
    calls = stage.call(1, 2, 3, 4, 5, 6)
    stage.desk.let_go(4)
    assert [call.result(_S) for call in calls] == [10, 20, 30, 40, 50, 60]
    assert stage.desk.batches == [[1], [2, 3], [4, 5], [6]]


def test_an_error_reaches_every_waiter_of_its_batch_and_no_other() -> None:
    stage = Stage(max_batch=2)
    calls = stage.call(1, 2, 3, 4)
    stage.desk.let_go()
    assert stage.desk.arrived.acquire(timeout=_S)
    assert stage.desk.arrived.acquire(timeout=_S)
    stage.desk.error = KeyError("broken")
    stage.desk.let_go(2)
    errors = [call.exception(_S) for call in calls]
    assert [type(error) for error in errors] == [type(None), KeyError, KeyError, type(None)]
    stage.desk.let_go()
    assert stage.batcher.submit(5, identity) == 50


def test_an_error_that_all_would_meet_ends_the_whole_line() -> None:
    stage = Stage(max_batch=2)
    calls = stage.call(1, 2, 3, 4)
    stage.desk.error = Fatal()
    stage.desk.let_go()
    assert [type(call.exception(_S)) for call in calls] == [Fatal] * 4
    assert stage.desk.batches == [[1]]
    stage.desk.let_go()
    assert stage.batcher.submit(5, identity) == 50


def test_an_item_that_fails_alone_fails_alone() -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda items: [ValueError(item) if item == 2 else item for item in items],
        max_batch=9,
        max_waiting=9,
        patience_s=_S,
    )
    assert batcher.submit(1, identity) == 1
    with pytest.raises(ValueError, match="2"):
        batcher.submit(2, identity)


def test_a_flush_with_too_few_results_is_an_error_for_all() -> None:
    batcher: Batcher[int, int] = Batcher(lambda _items: [], max_batch=9, max_waiting=9, patience_s=_S)
    for _ in range(2):
        with pytest.raises(ValueError):
            batcher.submit(1, identity)


def test_a_full_line_is_refused_at_once() -> None:
    stage = Stage(max_waiting=2)
    calls = stage.call(1, 2, 3)
    with pytest.raises(BacklogFull):
        stage.batcher.submit(4, identity)
    stage.desk.let_go(2)
    assert [call.result(_S) for call in calls] == [10, 20, 30]


def test_who_waited_too_long_in_line_is_told_and_leaves_it() -> None:
    stage = Stage()
    calls = stage.call(1, 2)
    stage.batcher.give_up(time.monotonic() + _S)
    assert isinstance(calls[1].exception(_S), FlushTimeout)
    calls += stage.call(3)
    stage.desk.let_go(2)
    assert calls[2].result(_S) == 30
    assert stage.desk.batches == [[1], [3]]


def test_who_waited_too_long_for_a_flush_is_told_once_and_what_comes_of_it_is_nobodys() -> None:
    stage = Stage()
    finished: list[int] = []

    def finish(result: int) -> int:
        finished.append(result)
        return result

    [call] = stage.call(1, finish=finish)
    assert stage.batcher.longest(time.monotonic() + 7) > 6
    stage.batcher.give_up(time.monotonic() + _S)
    assert isinstance(call.exception(_S), FlushTimeout)
    later = stage.call(2)
    stage.desk.let_go(2)
    assert later[0].result(_S) == 20
    assert [len(told) for told in stage.told.values()] == [1, 1]
    assert finished == []


def test_nobody_has_to_ask_for_those_who_waited_too_long() -> None:
    stage = Stage(patience_s=0.1)
    calls = stage.call(1, 2)
    assert [type(call.exception(_S)) for call in calls] == [FlushTimeout] * 2
    with pytest.raises(FlushTimeout):
        stage.batcher.submit(3, identity)
    stage.desk.let_go(2)
    while stage.batcher.longest(time.monotonic()):
        pass
    assert stage.desk.batches == [[1]], "the others had left the line"


def test_where_the_system_gives_no_thread_nobody_is_left_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stage = Stage()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(BacklogFull):
            stage.batcher.submit(1, identity)
    stage.desk.let_go()
    assert stage.batcher.submit(2, identity) == 20
    assert stage.desk.batches == [[2]]


def test_nothing_is_under_way_where_nobody_waits() -> None:
    stage = Stage()
    assert stage.batcher.longest(math.inf) == 0.0
    stage.desk.let_go()
    assert stage.batcher.submit(1, identity) == 10
    while stage.batcher.longest(time.monotonic()):
        pass


def test_a_caller_that_cannot_be_told_keeps_nobody_else_from_it() -> None:
    stage = Stage()

    def done(_outcome: object) -> None:
        raise KeyError("gone")

    first = stage.call(1)
    stage.batcher.begin(2, identity, done)
    last = stage.begin(3)
    stage.desk.let_go(2)
    assert [first[0].result(_S), last.result(_S)] == [10, 30]


def test_what_is_begun_from_a_call_that_is_told_goes_in_line_as_well() -> None:
    stage = Stage()
    again: Future[int] = Future()
    stage.batcher.begin(1, identity, lambda outcome: stage.batcher.begin(2, identity, again.set_result))
    stage.desk.let_go(2)
    assert again.result(_S) == 20


def test_a_hard_exit_of_the_flusher_leaves_nobody_waiting() -> None:
    stage = Stage()
    calls = stage.call(1, 2)
    stage.desk.error = SystemExit()
    stage.desk.let_go(2)
    wait(calls, _S)
    assert isinstance(calls[0].exception(_S), SystemExit)
    assert calls[1].result(_S) == 20


def test_one_thread_flushes_finishes_for_all_and_then_tells_them() -> None:
    stage = Stage()
    done: list[tuple[str, int]] = []
    threads: set[int] = set()

    def finish(result: int) -> int:
        threads.add(threading.get_ident())
        done.append(("finished", result))
        return result + 1

    first = stage.call(1)
    held = stage.call(2, 3, finish=finish)
    for call in held:
        call.add_done_callback(lambda told: done.append(("told", told.result())))
    stage.desk.let_go(2)
    assert [each.result(_S) for each in held] == [21, 31]
    last = stage.begin(4, finish)
    stage.desk.let_go()
    assert [first[0].result(_S), last.result(_S)] == [10, 41]
    assert done[:4] == [("finished", 20), ("finished", 30), ("told", 21), ("told", 31)]
    assert len(threads) == 1


def test_who_comes_while_the_last_batch_is_finished_is_flushed_next() -> None:
    stage = Stage()
    busy, go = threading.Event(), threading.Event()

    def finish(result: int) -> int:
        busy.set()
        assert go.wait(_S)
        return result

    calls = stage.call(1, finish=finish)
    stage.desk.let_go(2)
    assert busy.wait(_S)
    calls.append(stage.begin(2))
    go.set()
    assert [call.result(_S) for call in calls] == [10, 20]


def test_a_finish_that_fails_fails_its_own_caller_only() -> None:
    stage = Stage()

    def finish(result: int) -> int:
        if result == 20:
            raise KeyError(result)
        return result

    calls = stage.call(1, 2, 3, finish=finish)
    stage.desk.let_go(2)
    assert isinstance(calls[1].exception(_S), KeyError)
    assert [calls[0].result(_S), calls[2].result(_S)] == [10, 30]


def test_many_threads_each_get_their_own_result(seed: int) -> None:
    chance = random.Random(seed)
    sizes: list[int] = []

    def flush(items: list[int]) -> list[int | BaseException]:
        sizes.append(len(items))
        if chance.random() < 0.1:
            raise Fatal
        return [ValueError(item) if item % 7 == 0 else -item for item in items]

    batcher: Batcher[int, int] = Batcher(flush, max_batch=8, max_waiting=99, patience_s=_S, fails_backlog=Fatal)

    def call(item: int) -> bool:
        try:
            return batcher.submit(item, identity) == -item and item % 7 != 0
        except ValueError as error:
            return error.args == (item,) and item % 7 == 0
        except Fatal:
            return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(4000)))
    assert max(sizes) <= 8


def test_without_background_the_callers_own_thread_flushes_and_no_other_is_started() -> None:
    threads = set(threading.enumerate())
    ran_on = []

    def flush(items: list[int]) -> list[int]:
        ran_on.append(threading.current_thread())
        return [10 * item for item in items]

    batcher: Batcher[int, int] = Batcher(flush, max_batch=8, max_waiting=8, patience_s=_S, background=False)
    assert [batcher.submit(item, identity) for item in (1, 2)] == [10, 20]
    assert ran_on == [threading.current_thread()] * 2
    assert set(threading.enumerate()) <= threads


def test_without_background_a_call_that_comes_during_a_flush_goes_with_the_next_of_that_thread() -> None:
    outcomes: list[Any] = []

    def flush(items: list[int]) -> list[int]:
        if items == [1]:
            batcher.begin(2, identity, outcomes.append)
        return items

    batcher: Batcher[int, int] = Batcher(flush, max_batch=8, max_waiting=8, patience_s=_S, background=False)
    assert batcher.submit(1, identity) == 1
    assert outcomes == [2]


def test_without_background_another_lane_takes_a_call_on_the_same_thread() -> None:
    second: Batcher[int, int] = Batcher(
        lambda items: [-item for item in items], max_batch=8, max_waiting=8, patience_s=_S, background=False
    )
    first: Batcher[int, int] = Batcher(
        lambda items: items,
        max_batch=8,
        max_waiting=8,
        patience_s=_S,
        background=False,
        next_lane=lambda item, _outcome: (second, item + 1),
    )
    assert first.submit(1, identity) == -2
