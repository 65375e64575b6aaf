"""Messages between a process and the database: late, held back, lost, one way or both."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from greenlet import getcurrent, greenlet

from api.ledger.errors import LedgerBusy, LedgerError, LedgerUnavailable
from failover.errors import FailoverError, StoreBusy, StoreUnavailable
from tests.chaos.simulation.kernel import Kernel, Owner, Timer

T = TypeVar("T")

#: What a server may answer in place of a value.
ANSWERS = (FailoverError, LedgerError)


@dataclass
class Link:
    """One process's way to the database. `out` and `back`: whether each direction is cut."""

    random: random.Random
    #: The part of the messages that take long.
    slow: float = 0.07
    out_cut: bool = False
    back_cut: bool = False
    #: Packets that the sender's system sends again until they get through.
    held: list[Callable[[], None]] = field(default_factory=list)
    #: Nothing is slow any more.
    calm: bool = False

    def delay(self) -> float:
        """Mostly a few milliseconds, now and then long, rarely longer than anybody's patience."""
        draw = self.random.random()
        if self.calm or draw >= self.slow:
            return self.random.uniform(0.0005, 0.008)
        if draw >= 0.07 * self.slow:
            return self.random.uniform(0.008, 0.2)
        return self.random.uniform(0.2, 2.5)


class Blocked(Exception):
    """A statement that waits for a lock; it is tried again when one is released."""


@dataclass
class Request:
    """One message to the database and whoever waits for its answer."""

    sender: Owner
    link: Link
    work: Callable[[], Any]
    #: Carried out even when its sender has given up: it came as one message with its COMMIT.
    late: bool
    busy: type[Exception]
    lock_timeout: float
    task: greenlet
    timer: Timer | None = None
    over: bool = False
    waits: Timer | None = None


@dataclass(frozen=True)
class Kind:
    """How a connection is used: its patience, and what its errors are called."""

    timeout: float
    unavailable: type[Exception]
    busy: type[Exception]
    lock_timeout: float
    late: bool = False


STORE = Kind(4.0, StoreUnavailable, StoreBusy, 2.5)
RECORD = Kind(0.5, LedgerUnavailable, LedgerBusy, 0.3, late=True)
BULK = Kind(4.0, LedgerUnavailable, LedgerBusy, 0.3, late=True)
READ = Kind(2.0, LedgerUnavailable, LedgerBusy, 0.3)


class Server:
    """The receiving end: up, frozen (it still takes packets) or stopped (it refuses)."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.mode = "up"
        self.inbox: list[Request] = []
        self._blocked: list[Request] = []

    def call(self, sender: Owner, link: Link, work: Callable[[], T], kind: Kind) -> T:
        """Asks from within a task; gives what `work` gives at the server. Raises what it raises, or `unavailable`."""
        request = Request(sender, link, work, kind.late, kind.busy, kind.lock_timeout, getcurrent())
        lost = kind.unavailable("no answer in time")
        request.timer = self.kernel.at(kind.timeout, lambda: self._resume(request, lost), sender)
        self.kernel.at(link.delay(), lambda: self._arrive(request))
        answer: Any = self.kernel.park()
        if isinstance(answer, Refusal):
            raise kind.unavailable(answer.why)
        if isinstance(answer, BaseException):
            raise answer
        return cast(T, answer)

    def release(self) -> None:
        """A lock was released: those who wait try again, in the order in which they came."""
        blocked, self._blocked = self._blocked, []
        for request in blocked:
            self.kernel.at(0.0, partial(self._take, request))

    def thaw(self) -> None:
        """Goes on with what came meanwhile."""
        self.mode = "up"
        inbox, self.inbox = self.inbox, []
        for request in inbox:
            self.kernel.at(0.0, partial(self._take, request))

    def stop(self) -> None:
        """Every connection ends; what was in them is gone."""
        self.mode = "stopped"
        waiting = self.inbox + self._blocked
        self.inbox, self._blocked = [], []
        for request in waiting:
            self._reply(request, Refusal("the server ended the connection"))

    def mend(self, link: Link) -> None:
        """Ends a cut: half of the packets that were held back still arrive."""
        link.out_cut = link.back_cut = False
        held, link.held = link.held, []
        for packet in held:
            if link.random.random() < 0.5:
                self.kernel.at(link.delay(), packet)

    def _arrive(self, request: Request) -> None:
        if request.link.out_cut:
            request.link.held.append(lambda: self._arrive(request))
        else:
            self._take(request)

    def _take(self, request: Request) -> None:
        if self.mode == "stopped":
            self._reply(request, Refusal("connection refused"))
        elif self.mode == "frozen":
            self.inbox.append(request)
        else:
            self._carry_out(request)

    def _carry_out(self, request: Request) -> None:
        if request.over and not request.late:
            return
        try:
            answer = request.work()
        except Blocked:
            self._blocked.append(request)
            if request.waits is None:
                request.waits = self.kernel.at(request.lock_timeout, lambda: self._waited_enough(request))
            return
        except ANSWERS as error:
            answer = error
        if request.waits is not None:
            request.waits.cancel()
        self._reply(request, answer)

    def _waited_enough(self, request: Request) -> None:
        if request in self._blocked:
            self._blocked.remove(request)
            self._reply(request, request.busy("others hold what this needs"))

    def _reply(self, request: Request, answer: Any) -> None:
        if not request.link.back_cut:
            self.kernel.at(request.link.delay(), lambda: self._resume(request, answer), request.sender)

    def _resume(self, request: Request, answer: Any) -> None:
        if request.over:
            return
        request.over = True
        if request.timer is not None:
            request.timer.cancel()
        request.task.switch(answer)


@dataclass(frozen=True)
class Refusal:
    """The connection failed at once."""

    why: str
