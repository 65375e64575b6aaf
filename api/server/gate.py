"""A bounded number of requests at work in one worker, and since when each has been.
Beyond it the answer is an immediate 503; the spare threads give it, so that nobody waits into a time-out."""

import json
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ALWAYS = frozenset({"/livez"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_WHOLE_UP_TO = 1024 * 1024


class Gate:
    """WSGI middleware with so many places. `refuse` is the WSGI application that answers when all are taken."""

    def __init__(self, app: WSGIApplication, places: int, refuse: WSGIApplication) -> None:
        self._app = app
        self._places = places
        self._refuse = refuse
        self._taking = threading.Lock()  # looking and taking are two steps; all else is one for the interpreter
        self._since: dict[object, float] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or refuse. The paths of `ALWAYS` need no place."""
        if environ["PATH_INFO"] in ALWAYS:
            return self._app(environ, start_response)
        place = object()
        with self._taking:
            full = len(self._since) >= self._places
            if not full:
                self._since[place] = time.monotonic()
        if full:
            return self._refuse(environ, start_response)
        return self._work(place, environ, start_response)

    def busy(self) -> int:
        """How many places are taken."""
        return len(self._since)

    def longest(self, now: float) -> float:
        """For how many seconds the oldest request has been at work without giving anything."""
        return now - min(list(self._since.values()), default=now)

    def _work(self, place: object, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        known = _Length(start_response)
        try:
            answer = self._app(environ, known)
            if known.value > _WHOLE_UP_TO:
                return _Held(answer, lambda since: self._mark(place, since), lambda: self._leave(place))
            body = _whole(answer)
        except BaseException:
            self._leave(place)
            raise
        self._leave(place)
        return [body]

    def _mark(self, place: object, since: float) -> None:
        self._since[place] = since

    def _leave(self, place: object) -> None:
        self._since.pop(place, None)


class _Length:
    """A start_response that remembers the answer's Content-Length (infinite if it has none)."""

    __slots__ = ("_start", "value")

    def __init__(self, start: StartResponse) -> None:
        self._start = start
        self.value = math.inf

    def __call__(self, status: str, headers: list[tuple[str, str]], *rest: object) -> Callable[[bytes], object]:
        for name, value in headers:
            if len(name) == 14 and name.lower() == "content-length":
                self.value = int(value)
        return self._start(status, headers, *rest)  # type: ignore[arg-type]


class _Held:
    """A streamed answer: it keeps its place to the end. The clock stands while the client takes its time to read."""

    def __init__(self, inner: Iterable[bytes], mark: Callable[[float], None], leave: Callable[[], None]) -> None:
        self._inner = inner
        self._chunks = iter(inner)
        self._mark = mark
        self._leave = leave

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._mark(time.monotonic())
        try:
            chunk = next(self._chunks)
        except BaseException:
            self._leave()
            raise
        self._mark(math.inf)
        return chunk

    def close(self) -> None:
        try:
            _close(self._inner)
        finally:
            self._leave()


def overloaded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The plain answer of a full gate: 503 `OVERLOADED` as problem+json, `Retry-After: 1`."""
    detail = "this node has as much to do as it can; ask the next server, or this one again in a second"
    retry = ("Retry-After", "1")
    return problem(environ, start_response, HTTPStatus.SERVICE_UNAVAILABLE, "OVERLOADED", detail, retry)


def problem(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: HTTPStatus,
    code: str,
    detail: str,
    *headers: tuple[str, str],
) -> Iterable[bytes]:
    """A problem+json from before the application, with these `headers` besides."""
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    told = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex,
    }
    body = json.dumps(told).encode()
    described = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", [*described, *headers])
    return [body]


def _whole(answer: Iterable[bytes]) -> bytes:
    try:
        return b"".join(answer)
    finally:
        _close(answer)


def _close(answer: Iterable[bytes]) -> None:
    if (close := getattr(answer, "close", None)) is not None:
        close()
