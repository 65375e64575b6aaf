"""What of Granian is replaced: its listening socket is the master's, and its RSGI requests come to a plain function.
It ends by `LEAVE` alone, and so do its workers.

For RSGI Granian brings an asyncio loop and a task for each request. What is asked of that here is only to call back,
which needs neither: whatever Granian has for Python it brings on one thread of its own, and there it is called at once.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from granian._granian import CallbackScheduler, RSGIWorker, SocketHolder, WorkerSignal
from granian.constants import HTTPModes, Interfaces, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from .listener import BACKLOG
from .options import LEAVE, ServerOptions

OnRequest = Callable[[Any], None]
"""Takes Granian's `scope` and `proto` in one object, on Granian's thread; raises nothing."""

_QUIET_LOGS = {"version": 1, "incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}


class _Worker(WorkerProcess):
    """A worker as Granian has it, but for the signal that ends it."""

    def terminate(self) -> None:
        self.interrupt_by_parent = True
        if self.inner.is_alive():
            os.kill(self.inner.pid, LEAVE)


class Server(MPServer):
    """Granian's multiprocess server on a socket that the master has bound."""

    def __init__(self, options: ServerOptions, listener: socket.socket) -> None:
        super().__init__(
            target="",
            address=options.host,
            port=options.port,
            interface=Interfaces.RSGI,
            workers=options.workers,
            runtime_mode=RuntimeModes.st,
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

    def run(self, load: Callable[[], OnRequest]) -> None:
        """Serves until `LEAVE`; `load` is called in each worker, and what it gives with each request."""
        self.serve(spawn_target=_work, target_loader=load, wrap_loader=False)

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:  # type: ignore[override]
        worker = super()._spawn_worker(idx, target, callback_loader)
        worker.__class__ = _Worker
        return worker

    def _init_shared_socket(self) -> None:
        signal.signal(LEAVE, self.signal_handler_interrupt)  # Granian has just set those that are blocked here
        backlog = (BACKLOG,) if sys.platform == "linux" else ()
        # Granian's annotations know of neither (and of two arguments where Linux has three).
        self._shd: SocketHolder = SocketHolder(self._listener.fileno(), False, *backlog)  # type: ignore[call-arg, assignment]
        self._sso = self._listener


class _InlineLoop:
    """What Granian calls of an event loop."""

    def call_soon(self, call: Callable[..., object], *given: object, context: object = None) -> None:  # noqa: ARG002 - asyncio's signature
        call(*given)

    call_soon_threadsafe = call_soon


@WorkerProcess.wrap_target  # type: ignore[untyped-decorator]
def _work(
    worker_id: int,
    on_request: OnRequest,
    sock: Any,
    ipc: Any,
    _loop: Any,
    _mode: Any,
    threads: int,
    io_threads: int,
    python_threads: int,
    idle_timeout: int,
    backpressure: int,
    _task_impl: Any,
    http_mode: Any,
    http1: Any,
    http2: Any,
    websockets: bool,
    static_path: Any,
    _access_log: Any,
    tls: Any,
    _scope: Any,
    metrics: Any,
) -> None:
    """The life of a worker, as Granian's own for WSGI (`MPServer._spawn_wsgi_worker`) has it, but for RSGI."""
    ending, ended = WorkerSignal(), threading.Event()
    ending.add_cb(ended.set)
    signal.signal(LEAVE, lambda *_: ending.set())
    loop = _InlineLoop()
    scheduler: Any = CallbackScheduler(loop, None, None, None, None)  # type: ignore[call-arg]
    scheduler._schedule_fn = on_request
    make: Any = RSGIWorker  # Granian's annotations are of another version
    worker = make(
        worker_id,
        sock,
        ipc,
        threads,
        io_threads,
        python_threads,
        idle_timeout,
        backpressure,
        http_mode,
        http1,
        http2,
        websockets,
        static_path,
        *tls,
        metrics,
    )
    worker.serve_str(scheduler, loop, ending)
    ended.wait()
