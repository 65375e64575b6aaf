"""What runs in Granian's process and in each of its workers.
Of Granian's own classes one method is replaced: the listening socket is the master's, not one per worker."""

import faulthandler
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from wsgiref.types import WSGIApplication

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from .beats import BeatPipe
from .bodies import Bodies
from .children import die_with
from .connections import Unanswered
from .gate import Gate
from .listener import BACKLOG
from .options import ServerOptions, WorkerFactory
from .phase import Farewell, Phase, SharedPhase

log = logging.getLogger(__name__)

BEAT_S = 0.25
STOOD_STILL_S = 2.0
QUIET_S = 2.0
_QUIET_LOGS = {"version": 1, "incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}


class Server(MPServer):
    """Granian's multiprocess server on a socket that is open already."""

    def __init__(self, options: ServerOptions, listener: socket.socket) -> None:
        super().__init__(
            target="",
            address=options.host,
            port=options.port,
            interface=Interfaces.WSGI,
            workers=options.workers,
            blocking_threads=options.threads,
            backpressure=options.backpressure,
            backlog=BACKLOG,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=int(options.idle_timeout * 1000)),
            websockets=False,
            # "incremental" leaves our handlers alone: Granian's records come out with ours, errors only.
            log_level=LogLevels.error,
            log_dictconfig=_QUIET_LOGS,
            respawn_failed_workers=True,
            workers_kill_timeout=max(1, round(options.drain_timeout)),
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        backlog = (BACKLOG,) if sys.platform == "linux" else ()
        # Granian's annotations know of neither (and of two arguments where Linux has three).
        self._shd: SocketHolder = SocketHolder(self._listener.fileno(), False, *backlog)  # type: ignore[call-arg, assignment]
        self._sso = self._listener


def run_granian(
    options: ServerOptions,
    listener: socket.socket,
    factory: WorkerFactory,
    refuse: WSGIApplication,
    pipe: BeatPipe,
    phase: SharedPhase,
) -> None:
    """The life of Granian's process; it returns after a drain and raises SystemExit(1) after a crash loop."""
    multiprocessing.set_start_method("fork", force=True)
    granian, port = os.getpid(), listener.getsockname()[1]

    def load(_target: str) -> WSGIApplication:
        _be_worker(granian)
        worker = Worker(options, port, pipe, phase)
        threading.Thread(target=worker.beat, args=(granian,), name="beat", daemon=True).start()
        return worker.wrap(factory, refuse)

    Server(options, listener).serve(target_loader=load)


def _be_worker(granian: int) -> None:
    """Until Granian sets its own handlers a signal must end the worker, not vanish in those of its parent."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    die_with(granian)


class Worker:
    """A worker's own view: how busy it is, whether it hangs, when it may leave."""

    def __init__(self, options: ServerOptions, port: int, pipe: BeatPipe, phase: SharedPhase) -> None:
        self._options = options
        self._pipe = pipe
        self._phase = phase
        self._port = port
        self._gate: Gate | None = None
        self._bodies: Bodies | None = None

    def wrap(self, factory: WorkerFactory, refuse: WSGIApplication) -> WSGIApplication:
        """The application with its layers. From outside: farewell, bodies, gate."""
        options = self._options
        gate = Gate(factory(), options.places, refuse)
        # Half of the threads that have no place may wait for slow bodies, the others answer 503 and /livez.
        spare = (options.threads - options.places) // 2
        connections = Unanswered(self._port)
        bodies = Bodies(gate, options.body_limit, options.body_timeout, spare, connections)
        self._gate, self._bodies = gate, bodies
        return Farewell(bodies, self._phase)

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
            at_work = self._gate.longest(now) if self._gate is not None else 0.0
            self._pipe.send(os.getpid(), hung=at_work > self._options.hang_timeout and now > patient_until)
            self._end_slow_bodies(at_work, now)
            if self._busy() or self._phase.value is not Phase.CLOSED:
                quiet_since = now
            if now - quiet_since > QUIET_S:
                # What is left are connections that have not sent a whole head; Granian would wait for them.
                os._exit(0)
            time.sleep(BEAT_S)

    def _end_slow_bodies(self, at_work: float, now: float) -> None:
        """Whatever goes wrong with it must not end the beat: the master would take the worker for hung."""
        try:
            if self._bodies is not None:
                self._bodies.end_slow(at_work, now)
        except Exception:
            log.exception("slow bodies could not be ended")

    def _busy(self) -> bool:
        return any(layer is not None and layer.busy() for layer in (self._gate, self._bodies))
