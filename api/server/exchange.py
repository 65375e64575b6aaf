"""One request and its one answer. Whichever thread comes first gives it; all others come too late, and do nothing."""

import fcntl
import math
import os
import struct
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.types import WSGIEnvironment

from .application import Reply
from .phase import SharedPhase

Headers = list[tuple[str, str]]

_CLOSE = ("Connection", "close")
_INT = struct.Struct("i")
#: So much fits into any pipe.
_FIRST = 4096
_TAKEN_S, _LOOK_S, _LOOK_LONGEST_S = 20.0, 0.0005, 0.05


class Exchange:
    """`environ` is WSGI's; `since` when (monotonic) it was last at work, infinite while it waits for others.

    `ends`: no other request may come by this connection, whatever the answer is.
    """

    __slots__ = ("_left", "_phase", "_protocol", "client", "ends", "environ", "since")

    def __init__(
        self,
        protocol: Any,
        environ: WSGIEnvironment,
        phase: SharedPhase,
        left: Callable[["Exchange"], None],
        client: str = "",
    ) -> None:
        """`protocol`: Granian's; `client`: where it came from; `left`: called when nothing more is to be done for it.

        That is before its client can know: who has an answer and asks again finds what it took free again.
        """
        self._protocol = [protocol]
        self._phase = phase
        self._left = left
        self.client = client
        self.environ = environ
        self.ends = False
        self.since = math.inf

    @property
    def sent_id(self) -> str:
        """The caller's `X-Request-Id`, as it was sent."""
        return str(self.environ.get("HTTP_X_REQUEST_ID", ""))

    def answer(self, reply: Reply, *, ends: bool = False) -> None:
        """The answer, whole. `ends`: no other request may come by this connection."""
        protocol = self._take()
        if protocol is not None:
            self._left(self)
            protocol.response_bytes(reply.status, self._headed(reply.headers, ends), reply.body)

    def stream(self, status: int, headers: Headers, first: bytes, rest: Iterator[bytes]) -> None:
        """The answer in parts, of which `first` is not empty; it is left when the last one is on its way.

        Waits while the client does not read, and ends when it is gone. Raises what `rest` raises; the answer then
        ends where it stands.
        """
        protocol = self._take()
        if protocol is None:
            return
        # Granian's own stream buffers all it is given in memory. A file it reads no faster than it can send, and a
        # pipe is a file to it.
        try:
            reading, writing = os.pipe()
        except BaseException:
            self._left(self)
            raise
        # From here on it is Granian or the client that is waited for; one that is gone takes all of that time.
        self.since = math.inf
        try:
            try:
                os.write(writing, first[:_FIRST])
                protocol.response_file(status, self._headed(headers, ends=False), f"/dev/fd/{reading}")
                is_read = _is_read(reading)
            finally:
                # Granian has it open: its end is the last one now, and goes with the client.
                os.close(reading)
            if is_read and self._written(writing, first[_FIRST:]):
                self._write_all(writing, rest)
        finally:
            self._left(self)
            os.close(writing)

    def _take(self) -> Any:
        """Granian's protocol, once; then None."""
        try:
            return self._protocol.pop()  # one step for the interpreter: of two threads one has it
        except IndexError:
            return None

    def _headed(self, headers: Headers, ends: bool) -> Headers:
        """A client that keeps its connection while the server leaves would send its next request into the closing."""
        return [*headers, _CLOSE] if ends or self.ends or self._phase else headers

    def _write_all(self, pipe: int, parts: Iterator[bytes]) -> None:
        while True:
            self.since = time.monotonic()
            part = next(parts, None)
            if part is None or not self._written(pipe, part):
                return

    def _written(self, pipe: int, part: bytes) -> bool:
        """False where the client has gone. The clock stands while the client takes its time to read."""
        self.since = math.inf
        left = memoryview(part)
        try:
            while left:
                left = left[os.write(pipe, left) :]
        except BrokenPipeError:
            return False
        return True


def _is_read(pipe: int) -> bool:
    """Whether the client has read what was written, soon."""
    end, pause = time.monotonic() + _TAKEN_S, _LOOK_S
    while _INT.unpack(fcntl.ioctl(pipe, termios.FIONREAD, _INT.pack(0)))[0]:
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_LONGEST_S)
    return True
