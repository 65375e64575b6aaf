"""Virtual time: one queue of events, and tasks that wait in it, so that real blocking code runs step by step.

A task is a greenlet: where it asks the network or sleeps, the hub goes on with the next event, and nothing else ever
interrupts it. The same seed therefore gives the same run, to the last step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

Work = Callable[[], None]


class Violation(BaseException):
    """A promise that was broken. `rule` is its name; no code under test may catch it."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule, self.detail = rule, detail


class Timer:
    """One event to come. It does nothing once `cancel` was called."""

    __slots__ = ("owner", "work")

    def __init__(self, work: Work, owner: Owner | None) -> None:
        self.work: Work | None = work
        self.owner = owner

    def cancel(self) -> None:
        self.work = None


class Owner:
    """What tasks run in: an operating system's process. While it is paused, its events are kept for later."""

    def __init__(self) -> None:
        self.alive = True
        self.paused = False
        self.held: list[Timer] = []
        self.tasks: list[greenlet] = []


class Kernel:
    """`now` in seconds; `steps`: events that happened."""

    def __init__(self, keep_trace: bool = False) -> None:
        self.now = 0.0
        self.steps = 0
        self.trace: list[tuple[float, str]] | None = [] if keep_trace else None
        self._hub = getcurrent()
        self._queue: list[tuple[float, int, Timer]] = []
        self._count = 0

    def say(self, text: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.append((self.now, text))

    def at(self, delay: float, work: Work, owner: Owner | None = None) -> Timer:
        """Does `work` after `delay` seconds, unless `owner` is dead by then."""
        timer = Timer(work, owner)
        self._count += 1
        heapq.heappush(self._queue, (self.now + max(0.0, delay), self._count, timer))
        return timer

    def spawn(self, owner: Owner, body: Work) -> greenlet:
        """Runs `body` as a task of `owner`, from the next step on."""
        task = greenlet(body, parent=self._hub)
        owner.tasks = [one for one in owner.tasks if not one.dead]
        owner.tasks.append(task)
        self.at(0.0, task.switch, owner)
        return task

    def park(self) -> Any:
        """Ends this task's step; gives what it is resumed with."""
        return self._hub.switch()

    def sleep(self, seconds: float, owner: Owner) -> None:
        """Lets this task of `owner` wait."""
        self.at(seconds, getcurrent().switch, owner)
        self.park()

    def kill(self, owner: Owner) -> None:
        """Ends `owner` and all its tasks where they stand. Called from an event, never from a task of its own."""
        owner.alive = False
        owner.held = []
        for task in owner.tasks:
            if not task.dead:
                task.throw(GreenletExit)
        owner.tasks = []

    def resume(self, owner: Owner) -> None:
        """Ends a pause: what was to happen meanwhile happens now, in order."""
        owner.paused = False
        held, owner.held = owner.held, []
        for timer in held:
            if timer.work is not None:
                self._count += 1
                heapq.heappush(self._queue, (self.now, self._count, timer))

    def run(self, until: float, after_step: Work) -> None:
        """Goes on to `until`, calling `after_step` after each event."""
        while self._queue and self._queue[0][0] <= until:
            when, _, timer = heapq.heappop(self._queue)
            if timer.work is None:
                continue
            self.now = max(self.now, when)
            owner = timer.owner
            if owner is not None:
                if not owner.alive:
                    continue
                if owner.paused:
                    owner.held.append(timer)
                    continue
            self.steps += 1
            work, timer.work = timer.work, None
            work()
            after_step()
        self.now = max(self.now, until)
