"""One call of a node's `/livez`, of which only the status counts.

One connection, no redirect, no body, and an end to it all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from api.stats.presence import Presence
from api.version import VERSION

#: A free host takes up to a minute to wake a node.
PATIENCE_S = 75.0
_HEADERS = {"User-Agent": f"protecao/{VERSION} (keeps nodes awake)", "Accept": "*/*", "Connection": "close"}
#: What hosts' own proxies answer in the place of a node that does not run.
_NOTHING_RUNS = frozenset({404, 410, 500, 502, 503, 504, 520, 521, 522, 523, 525, 530})


def ask(url: str, patience_s: float = PATIENCE_S) -> Presence:
    """What is at a node's address: ISOLATED where it answers (the caller knows whether it beats), DEAD where nothing
    runs there, else UNREACHABLE. Raises nothing. It may take `patience_s`, besides looking its name up.
    """
    try:
        status = _status(urlsplit(url), patience_s)
    except ConnectionRefusedError:
        return Presence.DEAD
    except (OSError, ValueError, HTTPException):  # time-outs, unknown names, TLS, ports that are none, no HTTP
        return Presence.UNREACHABLE
    if status == 200:
        return Presence.ISOLATED
    return Presence.DEAD if status in _NOTHING_RUNS else Presence.UNREACHABLE


def _status(url: SplitResult, patience_s: float) -> int:
    """The status of the answer. Raises OSError, ValueError and `HTTPException`."""
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=patience_s)
    with contextlib.closing(connection), _ended_after(connection, patience_s):
        connection.request("GET", f"{url.path.rstrip('/')}/livez", headers=_HEADERS)
        return connection.getresponse().status


@contextlib.contextmanager
def _ended_after(connection: HTTPConnection, seconds: float) -> Iterator[None]:
    """A server that sends a byte now and then keeps every single wait short: this ends them all."""

    def end() -> None:
        with contextlib.suppress(OSError, AttributeError):  # it may not be connected
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
