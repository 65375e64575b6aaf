"""Group commit: the first waiter flushes for all, and every waiter gets its own result or the error."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from api.batcher import Batcher, FlushTimeout, LineFull, as_it_is

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
        limits = {"max_batch": 64, "max_waiting": 512, "patience_s": _S, "fails_line": Fatal, **options}
        self.batcher: Batcher[int, int] = Batcher(self.desk.flush, **limits)
        self.pool = ThreadPoolExecutor(64)

    def call(self, *items: int) -> list[Future[int]]:
        """Submits one after the other, each standing in line (or flushing) before the next comes."""
        calls = []
        for item in items:
            before = self.standing()
            calls.append(self.pool.submit(self.batcher.submit, item, as_it_is))
            while self.standing() == before and not calls[-1].done():
                pass
        return calls

    def standing(self) -> int:
        return len(self.batcher._line) + sum(map(len, self.desk.batches))


def test_one_caller_pays_one_flush() -> None:
    stage = Stage()
    stage.desk.let_go(2)
    assert stage.batcher.submit(1, as_it_is) == 10
    assert stage.batcher.submit(2, as_it_is) == 20
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
    assert stage.batcher.submit(5, as_it_is) == 50


def test_an_error_that_all_would_meet_ends_the_whole_line() -> None:
    stage = Stage(max_batch=2)
    calls = stage.call(1, 2, 3, 4)
    stage.desk.error = Fatal()
    stage.desk.let_go()
    assert [type(call.exception(_S)) for call in calls] == [Fatal] * 4
    assert stage.desk.batches == [[1]]
    stage.desk.let_go()
    assert stage.batcher.submit(5, as_it_is) == 50


def test_an_item_that_fails_alone_fails_alone() -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda items: [ValueError(item) if item == 2 else item for item in items],
        max_batch=9,
        max_waiting=9,
        patience_s=_S,
    )
    assert batcher.submit(1, as_it_is) == 1
    with pytest.raises(ValueError, match="2"):
        batcher.submit(2, as_it_is)


def test_a_flush_with_too_few_results_is_an_error_for_all() -> None:
    batcher: Batcher[int, int] = Batcher(lambda _items: [], max_batch=9, max_waiting=9, patience_s=_S)
    for _ in range(2):
        with pytest.raises(ValueError):
            batcher.submit(1, as_it_is)


def test_a_full_line_is_refused_at_once() -> None:
    stage = Stage(max_waiting=2)
    calls = stage.call(1, 2, 3)
    with pytest.raises(LineFull):
        stage.batcher.submit(4, as_it_is)
    stage.desk.let_go(2)
    assert [call.result(_S) for call in calls] == [10, 20, 30]


def test_who_waited_too_long_leaves_the_line_and_the_others_go_on() -> None:
    stage = Stage(patience_s=0.2)
    calls = stage.call(1, 2)
    assert isinstance(calls[1].exception(_S), FlushTimeout)
    calls += stage.call(3)
    stage.desk.let_go(2)
    assert [calls[0].result(_S), calls[2].result(_S)] == [10, 30]
    assert stage.desk.batches == [[1], [3]]


def test_who_waited_too_long_for_a_flush_under_way_is_told_and_the_flush_ends_well() -> None:
    stage = Stage(patience_s=0.2)
    calls = stage.call(1, 2)
    stage.desk.let_go()
    assert calls[0].result(_S) == 10
    calls += stage.call(3)  # waits for the flush of 2, which leads and is patient
    assert isinstance(calls[2].exception(_S), FlushTimeout)
    stage.desk.let_go(2)
    assert calls[1].result(_S) == 20


def test_a_hard_exit_of_the_flusher_leaves_nobody_waiting() -> None:
    stage = Stage()
    calls = stage.call(1, 2)
    stage.desk.error = SystemExit()
    stage.desk.let_go(2)
    wait(calls, _S)
    assert isinstance(calls[0].exception(_S), SystemExit)
    assert calls[1].result(_S) == 20


def test_the_flusher_finishes_for_all_of_its_batch_while_the_next_flush_is_under_way() -> None:
    stage = Stage()
    threads: list[int] = []

    def finish(result: int) -> int:
        threads.append(threading.get_ident())
        return result + 1

    def call(item: int) -> Future[int]:
        return stage.pool.submit(stage.batcher.submit, item, finish)

    first = stage.call(1)
    held = [call(2), call(3), call(4)]
    while stage.standing() < 4:
        pass
    stage.desk.let_go()
    stage.desk.let_go()
    assert [each.result(_S) for each in held] == [21, 31, 41]
    assert first[0].result(_S) == 10
    assert len(set(threads)) == 1


def test_a_finish_that_fails_fails_its_own_caller_only() -> None:
    stage = Stage()

    def finish(result: int) -> int:
        if result == 20:
            raise KeyError(result)
        return result

    first = stage.call(1)
    held = [stage.pool.submit(stage.batcher.submit, item, finish) for item in (2, 3)]
    while stage.standing() < 3:
        pass
    stage.desk.let_go(2)
    assert isinstance(held[0].exception(_S), KeyError)
    assert [held[1].result(_S), first[0].result(_S)] == [30, 10]


def test_many_threads_each_get_their_own_result(seed: int) -> None:
    chance = random.Random(seed)
    sizes: list[int] = []

    def flush(items: list[int]) -> list[int | BaseException]:
        sizes.append(len(items))
        if chance.random() < 0.1:
            raise Fatal
        return [ValueError(item) if item % 7 == 0 else -item for item in items]

    batcher: Batcher[int, int] = Batcher(flush, max_batch=8, max_waiting=99, patience_s=_S, fails_line=Fatal)

    def call(item: int) -> bool:
        try:
            return batcher.submit(item, as_it_is) == -item and item % 7 != 0
        except ValueError as error:
            return error.args == (item,) and item % 7 == 0
        except Fatal:
            return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(4000)))
    assert max(sizes) <= 8
