"""The way of each request through a worker: its body, then what answers at once, or else a thread with the application.

Requests come on Granian's one thread for Python, which all connections share: nothing here may wait.
"""

import logging
import math
import time
from functools import partial
from typing import Any
from wsgiref.types import WSGIEnvironment

from api.server.threads import Threads

from .application import Application
from .bodies import Bodies
from .connections import Connections, name_of
from .exchange import Exchange
from .options import ServerOptions
from .phase import DRAINING, SharedPhase
from .problem import broken, malformed, overloaded
from .wsgi import environ_of, respond, with_body

log = logging.getLogger(__name__)

ALWAYS = frozenset({"/livez"})
"""What is answered even where no thread is free; it must not wait for anything."""


class Dispatcher:
    """All of a worker's requests, each of which gets one answer whatever is raised."""

    def __init__(
        self,
        application: Application,
        options: ServerOptions,
        phase: SharedPhase,
        connections: Connections | None = None,
    ) -> None:
        self._app = application.wsgi
        self._non_blocking = application.non_blocking
        self._phase = phase
        self._places = options.places
        self._threads = Threads("request")
        self._bodies = Bodies(options.body_limit, options.body_timeout)
        self._connections = connections
        # No lock: each use is one step for the interpreter, and only Granian's thread adds to them.
        self._open: dict[Exchange, None] = {}
        self._at_work: dict[Exchange, None] = {}
        self._entered = math.inf

    def __call__(self, watcher: Any) -> None:
        """Takes one request, with Granian's `scope` and `proto`. On Granian's thread; raises nothing."""
        self._entered = time.monotonic()
        try:
            self._take(watcher.scope, watcher.proto)
        except BaseException:
            log.exception("a request could not be taken")  # Granian says 500
        self._entered = math.inf

    def end_slow(self, now: float) -> None:
        """Ends what takes too long to come or to go. To be called some times a second, always on one other thread."""
        self._bodies.end_slow(now)
        if self._connections is not None:
            self._connections.look(now, lambda: {exchange.client for exchange in list(self._open)})

    def busy(self) -> int:
        """How many requests are not answered yet."""
        return len(self._open)

    def longest(self, now: float) -> float:
        """For how many seconds at `now` (monotonic) the oldest of what is at work has been, Granian's thread too."""
        since = min((exchange.since for exchange in list(self._open)), default=math.inf)
        begun = 0.0 if self._non_blocking is None else self._non_blocking.longest(now)
        return max(begun, now - min(since, self._entered))

    def _take(self, scope: Any, protocol: Any) -> None:
        exchange = Exchange(protocol, environ_of(scope), self._phase, self._leave, name_of(scope.client))
        self._open[exchange] = None
        if self._connections is not None:
            self._connections.asked(exchange.client)
        try:
            self._bodies.read(protocol, exchange.environ, partial(self._got, exchange), partial(_cut, exchange))
        except BaseException:
            _fail(exchange)

    def _got(self, exchange: Exchange, raw: bytes) -> None:
        """The request is here. On Granian's thread; raises nothing."""
        self._entered = time.monotonic()
        try:
            self._pass_on(exchange, exchange.environ, raw)
        except BaseException:
            _fail(exchange)
        self._entered = math.inf

    def _pass_on(self, exchange: Exchange, environ: WSGIEnvironment, raw: bytes) -> None:
        environ[DRAINING] = bool(self._phase)
        exchange.ends = self._bodies.is_left(environ, raw)
        with_body(environ, raw)
        if self._non_blocking is not None and self._non_blocking.begin(environ, raw, exchange.answer):
            return
        if environ["PATH_INFO"] in ALWAYS:
            self._work(exchange)
            return
        if len(self._at_work) < self._places:
            self._at_work[exchange] = None
            exchange.since = time.monotonic()
            if self._threads.run(partial(self._work, exchange)):
                return
        exchange.answer(overloaded(exchange.sent_id))

    def _leave(self, exchange: Exchange) -> None:
        self._open.pop(exchange, None)
        self._at_work.pop(exchange, None)

    def _work(self, exchange: Exchange) -> None:
        try:
            respond(self._app, exchange)
        except BaseException:
            _fail(exchange)


def _cut(exchange: Exchange, why: str) -> None:
    """Its body is not coming."""
    exchange.answer(malformed(why, exchange.sent_id), ends=True)


def _fail(exchange: Exchange) -> None:
    log.exception("a request failed")  # without its path: a license key may be in it
    exchange.answer(broken(exchange.sent_id))
