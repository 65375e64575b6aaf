"""Reads each request's body before the request is passed on, without a thread that waits, and ends those that drip."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

Got = Callable[[bytes], None]
Failed = Callable[[str], None]


class Bodies:
    """A body is at most a byte longer than `limit`: what to say of one that is too long is the application's business.

    All but `end_slow` is called on Granian's own thread, and so are `got` and `failed`, one of which each body has
    called once; `end_slow` calls `failed` on its caller's.
    """

    def __init__(self, limit: int, timeout: float) -> None:
        """`limit` in bytes, `timeout` in seconds, for a whole body."""
        self._limit = limit
        self._timeout = timeout
        self._reading: dict[_Body, float] = {}  # no lock: each use is one step for the interpreter

    def read(self, protocol: Any, environ: WSGIEnvironment, got: Got, failed: Failed) -> None:
        """Reads the body of the request in `environ`. One that declares more than the limit is not read at all."""
        declared = _declared(environ)
        if declared is None or declared > self._limit:
            got(b"")
            return
        body = _Body(self._limit, got, failed, self._reading)
        self._reading[body] = time.monotonic()
        if declared >= 0:
            body.whole(protocol)
        else:
            body.in_parts(protocol)

    def is_left(self, environ: WSGIEnvironment, raw: bytes) -> bool:
        """Whether there is more of the body in this request than the `raw` that was read of it."""
        return len(raw) > self._limit or (not raw and (_declared(environ) or 0) > self._limit)

    def end_slow(self, now: float) -> None:
        """Ends those that have taken longer than they may. To be called some times a second."""
        for body, since in list(self._reading.items()):
            if now - since > self._timeout:
                body.end()


class _Body:
    """One that is being read."""

    def __init__(self, limit: int, got: Got, failed: Failed, reading: dict["_Body", float]) -> None:
        self._limit = limit
        self._got = got
        self._failed = failed
        self._reading = reading
        self._awaited: Any = None
        self._parts: list[bytes] = []
        self._size = 0
        self._ends = False

    def whole(self, protocol: Any) -> None:
        """One whose length is known, and not too much."""
        self._await(protocol(), self._has_come)

    def in_parts(self, protocol: Any) -> None:
        """One whose length is known at its end."""
        protocol.__aiter__()
        self._next(protocol)

    def end(self) -> None:
        """Cancels what is awaited, and the connection with it. Too early between two parts."""
        awaited = self._awaited
        if awaited is not None:
            awaited.cancel()

    def _await(self, awaitable: Any, then: Callable[[Any], None]) -> None:
        self._awaited = awaitable
        awaitable.add_done_callback(then)

    def _next(self, protocol: Any) -> None:
        try:
            part = protocol.__anext__()
        except StopAsyncIteration:
            self._is_here(b"".join(self._parts))
            return
        if self._ends:
            self._is_no_more("the body ends before its last chunk, or is not in chunks, or has trailers")
            return
        self._await(part, lambda awaited: self._part_has_come(protocol, awaited))

    def _has_come(self, awaited: Any) -> None:
        raw = self._result(awaited)
        if raw is not None:
            self._is_here(raw)

    def _part_has_come(self, protocol: Any, awaited: Any) -> None:
        part = self._result(awaited)
        if part is None:
            return
        # Granian says no more of an error than an empty part, which it gives at the end as well: but then no other.
        self._ends = not part
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._limit:
            self._is_here(b"".join(self._parts)[: self._limit + 1])
        else:
            self._next(protocol)

    def _result(self, awaited: Any) -> bytes | None:
        """What has come; None where that has been dealt with."""
        # It keeps whom it calls, and Python's collector does not see that: the two would hold each other for ever.
        self._awaited = None
        try:
            return bytes(awaited.result())
        except asyncio.CancelledError:
            self._is_no_more("the body did not come in time")
        except Exception:
            self._is_no_more("the body ends before its declared length")
        return None

    def _is_here(self, raw: bytes) -> None:
        if self._reading.pop(self, None) is not None:
            self._got(raw)

    def _is_no_more(self, why: str) -> None:
        if self._reading.pop(self, None) is not None:
            self._failed(why)


def _declared(environ: WSGIEnvironment) -> int | None:
    """The body's length: None when there is none, -1 when it is not known before its end."""
    with contextlib.suppress(ValueError):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > 0:
            return length
    return -1 if "HTTP_TRANSFER_ENCODING" in environ else None
