"""The load: a closed loop of N keep-alive connections over requests that were made and signed beforehand.

One thread and raw sockets, since it shares two cores with what it measures: about 30 µs of CPU for each answer.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PATIENCE_S = 30.0
#: Clients come one after the other. Of a burst the worker that wakes first takes most, and the other stands idle.
_BETWEEN_S = 0.002


@dataclass(slots=True)
class Window:
    """What one closed loop saw. `latencies`: seconds, of good answers; `refused`: other answers by their status."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)

    @property
    def rps(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency (s) that this share of good answers did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class _Connection:
    """One request after the other on a socket, the next when the answer to the last is complete."""

    __slots__ = ("_ends_at", "_parts", "_size", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self._parts = b""
        self._ends_at = -1
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bytes | None:
        """The whole answer once it is complete. Raises `ConnectionError` where the server ends it before."""
        part = self.socket.recv(65_536)
        if not part:
            raise ConnectionError("the server ended a connection in the middle of an answer")
        self._parts += part
        if self._ends_at < 0 and (head := self._parts.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._parts, 0, head + 2)
            if length is None:
                raise ConnectionError("an answer without Content-Length")
            self._ends_at = head + 4 + int(length[1])
        return self._parts if 0 <= self._ends_at <= len(self._parts) else None


def drive(port: int, connections: int, requests: Sequence[bytes], seconds: float, good: Sequence[bytes]) -> Window:
    """Sends `requests` for so many seconds (or until they are used up) and gives what came back.

    An answer is good when it is 200 and has all of `good` in it. The window ends with the last answer.
    """
    waiting, window = deque(requests), Window()
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        opened = []
        for _ in range(connections):
            opened.append(connection := _Connection(port))
            time.sleep(_BETWEEN_S)
            stack.callback(connection.socket.close)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        began = time.perf_counter()
        for connection in opened:
            connection.send(waiting.popleft())
        _loop(selector, waiting, len(opened), began + seconds, window, good)
        window.seconds = time.perf_counter() - began
    return window


def _loop(
    selector: selectors.BaseSelector,
    waiting: deque[bytes],
    flying: int,
    end: float,
    window: Window,
    good: Sequence[bytes],
) -> None:
    while flying:
        ready = selector.select(_PATIENCE_S)
        if not ready:
            raise TimeoutError(f"no answer for {_PATIENCE_S:g} s")
        for key, _ in ready:
            answer = key.data.receive()
            if answer is None:
                continue
            now = time.perf_counter()
            if answer[9:12] == b"200" and all(part in answer for part in good):
                window.latencies.append(now - key.data.sent_at)
            else:
                window.refused[int(answer[9:12])] += 1
            if waiting and now < end:
                key.data.send(waiting.popleft())
            else:
                flying -= 1
