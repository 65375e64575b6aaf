"""What a worker serves: a WSGI application, and what answers some of its requests without a thread for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from wsgiref.types import WSGIApplication, WSGIEnvironment

PRIVATE: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
"""Headers of every answer that is not the same for everybody: no cache keeps it, and no browser guesses its type."""


class Reply(NamedTuple):
    """A whole answer. Its length need not be among the headers."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class NonBlockingHandler(Protocol):
    """Answers requests that it has begun from a thread of its own."""

    def begin(self, environ: WSGIEnvironment, raw: bytes, answer: Callable[[Reply], None]) -> bool:
        """Takes the request in `environ` with the body `raw`, and has `answer` called once, on any thread.

        Waits for nothing, and raises nothing. False: it does not take it, nothing was done, and the WSGI application
        is to be asked. `environ` is left as it is.
        """

    def longest(self, now: float) -> float:
        """For how many seconds at `now` (monotonic) its oldest work has been under way; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Application:
    """`wsgi` answers whatever `non_blocking` does not take."""

    wsgi: WSGIApplication
    non_blocking: NonBlockingHandler | None = None


WorkerFactory = Callable[[], Application]
"""Makes the application inside each worker, after the fork: engines and threads belong here."""
