"""The application under servers that load it once and then fork: nothing that is started outlives a fork.

Threads do not go along into a forked process, and connections and file locks must not be shared with one. So each
process has an application of its own, made and started in it: at its first request, or a moment after it was made. A
process that forks (gunicorn's master with `--preload`) ends what it has started before, and only serves if it is asked.
"""

from __future__ import annotations

import atexit
import importlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from types import ModuleType
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask

from api import logs
from api.runtime import Runtime

_log = logs.get("per_process")

#: A server that is to fork does so at once when it has loaded the application.
_FORKS_WITHIN_S = 0.25


class PerProcess:
    """WSGI: what `app` is, in whichever process it is asked."""

    def __init__(self, app: Flask, make: Callable[[], Flask]) -> None:
        """`app` is this process's, made but not started; `make` makes another."""
        self._make = make
        self._extensions = app.extensions
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._take(app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._serving != os.getpid():
            self._start()
        return self._wsgi(environ, start_response)

    def watch(self) -> None:
        """Starts it soon, anew in each process that is forked, and ends it with the process."""
        uwsgi = _uwsgi()
        if uwsgi is None or uwsgi.worker_id():
            self._start_soon()
        else:  # its master, which only loads the application
            self._give_up()
            _call_after_fork(uwsgi, _weakly(self._start_soon))
        if hasattr(os, "register_at_fork"):
            before, parent, child = map(_weakly, (self._before_fork, self._in_parent, self._in_child))
            os.register_at_fork(before=before, after_in_parent=parent, after_in_child=child)
        _at_end(_weakly(self._end))

    def _take(self, app: Flask) -> None:
        self._wsgi: WSGIApplication = app.wsgi_app
        self._runtime: Runtime = app.extensions["runtime"]
        self._extensions.update(app.extensions)
        self._made_in: int | None = os.getpid()
        self._serving: int | None = None

    def _start_soon(self) -> None:
        self._timer = threading.Timer(_FORKS_WITHIN_S, self._start)
        self._timer.daemon = True
        self._timer.start()

    def _start(self) -> None:
        with self._lock:
            me = os.getpid()
            if self._made_in != me:
                self._take(self._make())
            if self._serving != me:
                self._serving = me
                self._runtime.start()

    def _before_fork(self) -> None:
        """Holds the lock through the fork, so that nothing is being started on either side of it."""
        self._lock.acquire()
        if self._timer is not None:
            self._timer.cancel()
        if self._made_in == os.getpid():
            if self._serving:
                _log.warning("this process forks: its children serve from now on")
            self._give_up()

    def _give_up(self) -> None:
        self._runtime.give_up()
        self._made_in = self._serving = None

    def _in_parent(self) -> None:
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        self._start_soon()

    def _end(self) -> None:
        """To be called when the process ends in order, as gunicorn's workers do."""
        if self._serving == os.getpid():
            self._runtime.leave()


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """`method` for those who never let go of what they are to call."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        found = weak()
        if found is not None:
            found()

    return call


def _at_end(call: Callable[[], None]) -> None:
    """Has `call` called when the process ends, before its pools of threads do: they bring what is queued to the ledger.

    For that there is no public way: `atexit` comes after them.
    """
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(call)


def _uwsgi() -> ModuleType | None:
    """uWSGI's module, which there is only inside it. Raises RuntimeError where it lets no threads of ours run."""
    try:
        uwsgi = importlib.import_module("uwsgi")
    except ImportError:
        return None
    if not {"enable-threads", "threads"} & {_text(name) for name in uwsgi.opt}:
        raise RuntimeError("uWSGI runs no threads of an application as it is started: give it --enable-threads")
    return uwsgi


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _call_after_fork(uwsgi: ModuleType, call: Callable[[], None]) -> None:
    """uWSGI forks without Python's knowing, and has one hook for it."""
    before = getattr(uwsgi, "post_fork_hook", None)

    def hook() -> None:
        if before is not None:
            before()
        call()

    uwsgi.post_fork_hook = hook  # type: ignore[attr-defined]
