"""What runs in Granian's process and in each of its workers."""

import contextlib
import faulthandler
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time

from .application import WorkerFactory
from .beats import BeatPipe
from .children import die_with
from .connections import Connections, end_peer, peers_of
from .dispatcher import Dispatcher
from .granian_worker import Server
from .listener import PortUnavailable, open_port
from .options import LEAVE, ServerOptions
from .phase import Phase, SharedPhase

log = logging.getLogger(__name__)

BEAT_S = 0.5
STOOD_STILL_S = 2.0
QUIET_S = 2.0


def run_granian(
    options: ServerOptions, listener: socket.socket, factory: WorkerFactory, pipe: BeatPipe, phase: SharedPhase
) -> None:
    """The life of Granian's process; it returns after a drain and raises SystemExit(1) after a crash loop."""
    multiprocessing.set_start_method("fork", force=True)
    granian = os.getpid()

    def load() -> Dispatcher:
        _be_worker(granian)
        worker = Worker(options, pipe, phase, Connections(options, peers_of(listener), end_peer))
        threading.Thread(target=worker.beat, args=(granian,), name="beat", daemon=True).start()
        dispatcher = worker.open(factory)
        _open(listener, phase)
        return dispatcher

    Server(options, listener).run(load)


def _open(listener: socket.socket, phase: SharedPhase) -> None:
    try:
        open_port(listener)
    except PortUnavailable as error:
        log.error("%s", error)
        phase.value = Phase.NO_PORT
        raise SystemExit(1) from error


def _be_worker(granian: int) -> None:
    """Until it has a handler of its own `LEAVE` must end the worker, not vanish in the one of its parent."""
    signal.signal(LEAVE, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    die_with(granian)
    _let_the_running_finish()


def _let_the_running_finish() -> None:
    """Threads of this process wait for a free core when they wake, instead of preempting a running one (Linux).

    A batch's calls are completed one after the other, and each wakes the thread that sends it: one at a time, with a
    change of thread and back for each, or all of them at the end.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Worker:
    """A worker's own view: how busy it is, whether it hangs, when it may leave."""

    def __init__(self, options: ServerOptions, pipe: BeatPipe, phase: SharedPhase, connections: Connections) -> None:
        self._options = options
        self._connections = connections
        self._pipe = pipe
        self._phase = phase
        self._front: Dispatcher | None = None

    def open(self, factory: WorkerFactory) -> Dispatcher:
        """What takes the worker's requests."""
        self._front = dispatcher = Dispatcher(factory(), self._options, self._phase, self._connections)
        return dispatcher

    def beat(self, granian: int) -> None:
        """Runs in a thread for as long as the worker lives."""
        last = quiet_since = patient_until = time.monotonic()
        while True:
            now = time.monotonic()
            if os.getppid() != granian:
                os._exit(1)
            if now - last > STOOD_STILL_S:  # the whole host, perhaps: what was at work has not had that time either
                patient_until = now + self._options.hang_timeout
            last = now
            at_work = self._front.longest(now) if self._front is not None else 0.0
            self._pipe.send(os.getpid(), hung=at_work > self._options.hang_timeout and now > patient_until)
            self._end_slow(now)
            if self._phase.value is not Phase.CLOSED or (self._front is not None and self._front.busy()):
                quiet_since = now
            if now - quiet_since > QUIET_S:
                # What is left are connections that have not sent a whole head; Granian would wait for them.
                os._exit(0)
            time.sleep(BEAT_S)

    def _end_slow(self, now: float) -> None:
        """Whatever goes wrong with it must not end the beat: the master would take the worker for hung."""
        try:
            if self._front is not None:
                self._front.end_slow(now)
        except Exception:
            log.exception("slow connections could not be ended")
