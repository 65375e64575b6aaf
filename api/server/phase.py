"""Where the server stands between serving and gone: one byte that all its processes share.
The master writes it; workers look at it with each answer."""

import mmap
from collections.abc import Callable, Iterable
from enum import IntEnum
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

DRAINING = "server.draining"
"""The key in the WSGI environ that is True once the server has been told to end: be unready, begin nothing long."""


class Phase(IntEnum):
    """SERVING; LEAVING: still accepting, each answer ends its connection; CLOSED: nothing new comes in."""

    SERVING = 0
    LEAVING = 1
    CLOSED = 2


class SharedPhase:
    """The phase, in memory that is shared through the fork; so it must be made before it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    @property
    def value(self) -> Phase:
        """The phase now."""
        return Phase(self._memory[0])

    @value.setter
    def value(self, phase: Phase) -> None:
        self._memory[0] = phase

    def __bool__(self) -> bool:
        """True once the server is on its way out."""
        return self._memory[0] > 0  # asked twice for each request: no enumeration on this path


class Farewell:
    """WSGI middleware: while the server leaves, every answer carries `Connection: close`.

    A client that keeps its connection would otherwise send its next request into the closing of it.
    """

    def __init__(self, app: WSGIApplication, phase: SharedPhase) -> None:
        self._app = app
        self._phase = phase

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, with the header if it is time. Asked again when the answer is ready: the phase may have changed."""
        environ[DRAINING] = bool(self._phase)

        def start(status: str, headers: list[tuple[str, str]], *rest: object) -> Callable[[bytes], object]:
            if self._phase:
                headers = [*headers, ("Connection", "close")]
            return start_response(status, headers, *rest)  # type: ignore[arg-type]

        return self._app(environ, start)
