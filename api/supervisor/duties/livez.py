"""One call of a node's `/livez`, of which only the status counts.

Bounded by construction: one connection, no redirect, a few hundred bytes, and an end to it all.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, urlsplit

from api.stats.presence import Presence
from api.version import VERSION

#: A free host takes up to a minute to wake a node.
PATIENCE_S = 75.0
_MOST_BYTES = 512
_PORTS = {"http": 80, "https": 443}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\n]*)?\r?\n")
#: What hosts' own proxies answer in the place of a node that does not run.
_NOTHING_RUNS = frozenset({404, 410, 500, 502, 503, 504, 520, 521, 522, 523, 525, 530})


def ask(url: str, patience_s: float = PATIENCE_S) -> Presence:
    """What is at a node's address: ISOLATED where it answers (whoever asks knows whether it beats), DEAD where nothing
    runs there, else UNREACHABLE. Raises nothing. It may take `patience_s`, besides looking its name up.
    """
    try:
        status = _status(urlsplit(url), time.monotonic() + patience_s)
    except ConnectionRefusedError:
        return Presence.DEAD
    except (OSError, ValueError):  # time-outs, names that are not known, TLS, ports that are none
        return Presence.UNREACHABLE
    if status == 200:
        return Presence.ISOLATED
    return Presence.DEAD if status in _NOTHING_RUNS else Presence.UNREACHABLE


def _status(url: SplitResult, ends_at: float) -> int | None:
    """The status of the answer, None where that is not HTTP. Raises OSError and ValueError."""
    host, port = url.hostname or "", url.port or _PORTS[url.scheme]

    def left() -> float:
        seconds = ends_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    with (
        socket.create_connection((host, port), timeout=left()) as plain,
        _ended_after(plain, left()),
        _encrypted(plain, host) if url.scheme == "https" else contextlib.nullcontext(plain) as connection,
    ):
        connection.sendall(_request(url))
        return _first_line(connection, left)


def _encrypted(plain: socket.socket, host: str) -> ssl.SSLSocket:
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _request(url: SplitResult) -> bytes:
    lines = (
        f"GET {url.path.rstrip('/')}/livez HTTP/1.1",
        f"Host: {url.netloc}",
        f"User-Agent: protecao/{VERSION} (keeps nodes awake)",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _first_line(connection: socket.socket, left: Callable[[], float]) -> int | None:
    head = b""
    while b"\n" not in head and len(head) < _MOST_BYTES:
        connection.settimeout(left())
        piece = connection.recv(_MOST_BYTES - len(head))
        if not piece:
            break
        head += piece
    line = _STATUS_LINE.match(head)
    return None if line is None else int(line[1])


@contextlib.contextmanager
def _ended_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """A server that sends a byte now and then keeps every single wait short: this ends them all."""

    def end() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
