"""The application under servers that give it no threads, as PythonAnywhere does: nothing runs between two requests.

What a background job does elsewhere is done with the requests; the supervisor is `flask node run-supervisor`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask

from api.runtime import Runtime

#: Answers without the ledger and without a file, here as everywhere.
_LIVEZ = "/livez"


class PerRequest:
    """WSGI: what `app` is, in whichever process it is asked, which may be one that was forked since."""

    def __init__(self, app: Flask, make: Callable[[], Flask]) -> None:
        """`app` is this process's, made but not started; `make` makes another."""
        self._make = make
        self._starting = threading.Lock()
        self._take(app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != _LIVEZ:
            self._prepare()
        return self._wsgi(environ, start_response)

    def _take(self, app: Flask) -> None:
        self._wsgi: WSGIApplication = app.wsgi_app
        self._runtime: Runtime = app.extensions["runtime"]
        self._made_in, self._started_in = os.getpid(), 0

    def _prepare(self) -> None:
        """Starts it with this process's first request, and has it look at its ledger where that is due."""
        me = os.getpid()
        if self._started_in != me:
            with self._starting:
                self._start(me)
        self._runtime.poll_when_due()

    def _start(self, me: int) -> None:
        if self._made_in != me:
            self._take(self._make())
        if self._started_in != me:
            self._runtime.start()
            self._runtime.settle()  # one slow request rather than some refused ones
            self._started_in = me
