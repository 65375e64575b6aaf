"""The top process: it has the port, forks Granian and the companions, watches them, and ends them in order.
It has one thread and does nothing else, so that it can always fork and always answer a signal."""

import contextlib
import gc
import logging
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import psutil

from .application import WorkerFactory
from .beats import BeatPipe, Pulse
from .children import ENDS, Child, reap_orphans
from .listener import PortUnavailable, bind, queued, turn_away
from .options import LEAVE, WORKERS_ENDED, Companion, ServerOptions
from .phase import Phase, SharedPhase
from .worker import run_granian

log = logging.getLogger(__name__)

#: A child that ends, and a signal, wake the master at once.
TICK_S = 0.5
SPARE_S = 1.0
DUMP_S = 0.1
#: For handshakes that were under way when the port was shut, and the requests that follow them.
SETTLE_S = 0.25
QUEUE_S = 2.0
MUSTER_S = 10.0


def serve(options: ServerOptions, factory: WorkerFactory, companions: Sequence[Companion] = ()) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; the exit status: 0 after a drain, 1 if the port cannot be had.

    `factory` makes the application in each worker, after the fork. To be called in the main thread of a process that
    has no other yet, with everything heavy imported.
    """
    try:
        listener = bind(options.host, options.port)
    except PortUnavailable as error:
        log.error("%s%s", error, options.port_advice if error.is_in_use else "")
        return 1
    _allow_many_files()
    gc.collect()
    gc.freeze()
    with listener:
        return Master(options, listener, factory, companions).run()


#: How often the workers are counted: to look each of them up costs more than all else that is done at a tick.
_COUNT_EVERY_S = 1.0


class Master:
    """Keeps Granian and the companions running. One instance per process."""

    def __init__(
        self,
        options: ServerOptions,
        listener: socket.socket,
        factory: WorkerFactory,
        companions: Sequence[Companion],
    ) -> None:
        self._options = options
        self._listener = listener
        self._pipe = BeatPipe()
        self._phase = SharedPhase()
        self._pulse = Pulse(options.hang_timeout)
        self._granian = Child("granian", lambda: run_granian(options, listener, factory, self._pipe, self._phase))
        self._companions = [Child(companion.name, _apart(companion.run, listener)) for companion in companions]
        self._children = [self._granian, *self._companions]
        self._ending = False
        self._mustered, self._counted = time.monotonic(), float("-inf")
        self._wake, self._waker = os.pipe()

    def run(self) -> int:
        """Until a signal ends it, or it turns out that another process has the port. Gives the exit status."""
        self._catch_signals()
        while not self._ending and self._phase.value is not Phase.NO_PORT:
            self._keep_running(time.monotonic())
            self._watch_workers(time.monotonic())
            self._sleep(TICK_S)
        status = int(self._phase.value is Phase.NO_PORT)
        self._drain()
        return status

    def _keep_running(self, now: float) -> None:
        self._look_after(self._children, now)
        for child in self._children:
            if child.pid is None and now >= child.due:
                child.start(now)
                if child is self._granian:
                    self._mustered = now

    def _look_after(self, children: Sequence[Child], now: float) -> None:
        """Kills those past their time, and reaps the dead, with what they leave behind."""
        for child in children:
            child.press(now)
            child.reap(now)
        reap_orphans([child.pid for child in self._children if child.pid is not None])

    def _watch_workers(self, now: float) -> None:
        self._pulse.record(self._pipe.receive(), now)
        if now - self._counted >= _COUNT_EVERY_S:
            self._counted = now
            if self._pulse.keep(self._is_worker) >= self._options.workers:
                self._mustered = now
        for pid in self._pulse.hung(now):
            self._kill_worker(pid)
        if now - self._mustered > MUSTER_S:
            log.error("workers are missing and have not come back, starting Granian again")
            self._granian.end_by(now + self._options.drain_timeout)
            self._mustered = now + self._options.drain_timeout

    def _kill_worker(self, pid: int) -> None:
        """End a hung worker; Granian starts another. Where its threads stand is written to stderr before."""
        if not self._is_worker(pid):
            return
        log.error("worker hangs, killing it", extra={"worker": pid})
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
            time.sleep(DUMP_S)
            os.kill(pid, signal.SIGKILL)

    def _is_worker(self, pid: int) -> bool:
        """Whether this process id is (still) that of one of Granian's workers, and not of its dead shell."""
        try:
            process = psutil.Process(pid)
            return bool(process.ppid() == self._granian.pid and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def _drain(self) -> None:
        """Companions first, then clients are refused, then the queue is emptied, then Granian, then what is left.

        At no moment is anybody kept waiting: a connection is served, or refused at once.
        """
        log.info("ending: telling clients and companions")
        self._phase.value = Phase.LEAVING
        began = time.monotonic()
        for companion in self._companions:
            companion.signal(LEAVE)
        time.sleep(self._options.drain_notice)
        turn_away(self._listener)
        self._empty_queue()
        self._listener.close()
        self._phase.value = Phase.CLOSED
        deadline = time.monotonic() + self._options.drain_timeout + 2 * SPARE_S
        self._granian.end_by(deadline)
        self._await([self._granian], deadline + SPARE_S)
        self._end_companions()
        log.info("ended", extra={"seconds": round(time.monotonic() - began, 2)})

    def _empty_queue(self) -> None:
        """Waits until the workers have accepted the connections that came in time; not for ever: they may be frozen."""
        end = time.monotonic() + QUEUE_S
        time.sleep(SETTLE_S)
        while queued(self._listener) and time.monotonic() < end:
            time.sleep(0.01)

    def _end_companions(self) -> None:
        now = time.monotonic()
        for companion in self._companions:
            companion.reap(now)
            companion.end_by(now + self._options.drain_timeout, WORKERS_ENDED)
        self._await(self._companions, now + self._options.drain_timeout + SPARE_S)

    def _await(self, children: Sequence[Child], deadline: float) -> None:
        """Until these children are gone; each is killed when past its own time."""
        while any(child.pid is not None for child in children) and (now := time.monotonic()) < deadline:
            self._look_after(children, now)
            self._sleep(min(TICK_S, deadline - now))

    def _sleep(self, seconds: float) -> None:
        """At most so long; a signal ends it."""
        ready, _, _ = select.select([self._wake], [], [], max(seconds, 0))
        if ready:
            os.read(self._wake, 4096)

    def _catch_signals(self) -> None:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        for number in ENDS:
            # `nohup` has the closing of a terminal ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler that does nothing, but interrupts the sleep."""


def _apart(run: Callable[[], int | None], listener: socket.socket) -> Callable[[], int | None]:
    """A companion serves no clients: it must not hold the port open."""

    def apart() -> int | None:
        listener.close()
        return run()

    return apart


def _allow_many_files() -> None:
    """Each connection is an open file; the usual soft limit of 1,024 is below what the hosts allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
