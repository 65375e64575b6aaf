"""Connecting within a time limit: libpq's own is 2 s at the least, for each host of its URL, and DNS has none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import Any

import psycopg2

#: A connection is waited for in steps of so many seconds: by how much each takes longer this process was late itself.
_STEP_S = 0.05

_patience: ContextVar[float | None] = ContextVar("patience", default=None)


@contextlib.contextmanager
def connecting_within(seconds: float | None) -> Iterator[None]:
    """What the block connects, on this thread, has come about after so many seconds or fails; None: no such limit.

    Time in which this process did not get to run is not counted: its own slowness says nothing of the server.
    """
    before = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(before)


def patiently(connect: Callable[[], Any]) -> Any:
    """What `connect` gives, or `psycopg2.OperationalError` once the limit of `connecting_within` is over.

    A connection that comes about later is closed at once: no caller waits for it any more.
    """
    seconds = _patience.get()
    if seconds is None:
        return connect()
    attempt: Future[Any] = Future()
    threading.Thread(target=_try, args=(attempt, connect), name="connecting", daemon=True).start()
    left_s = seconds
    while left_s > 0 and not attempt.done():
        step_s = min(_STEP_S, left_s)
        wait([attempt], step_s)
        left_s -= step_s
    if attempt.cancel():
        raise psycopg2.OperationalError(f"no connection within {seconds} s")
    return attempt.result()


def _try(attempt: Future[Any], connect: Callable[[], Any]) -> None:
    try:
        made = connect()
    except Exception as error:
        if attempt.set_running_or_notify_cancel():
            attempt.set_exception(error)
        return
    if attempt.set_running_or_notify_cancel():
        attempt.set_result(made)
    else:
        made.close()
