"""A network between a node and Postgres: every byte arrives so many milliseconds later, in either direction.

`python -m tests.bench.proxy <listening port> <target port> <delay in ms>`. A round trip costs twice the delay; the
bandwidth is not limited, and bytes that follow each other stay as close as they were sent.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

_HOST = "127.0.0.1"


class _End(asyncio.Protocol):
    """One end of a connection: what comes in here goes out at `other`, later."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._waiting: deque[bytes | None] = deque()
        self.other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._later(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        self._waiting.append(data)
        asyncio.get_running_loop().call_later(self._delay_s, self._pass_on)

    def _pass_on(self) -> None:
        # Always the oldest: timers that are due together may ring in any order.
        data = self._waiting.popleft()
        if self.other is None:
            self._waiting.appendleft(data)
            asyncio.get_running_loop().call_later(self._delay_s, self._pass_on)
        elif data is None:
            self.other.close()
        else:
            self.other.write(data)


async def forward(port: int, target: int, delay_s: float) -> None:
    """Listens on loopback `port` and passes everything on to loopback `target`, until it is cancelled."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    async def connect(near: _End) -> None:
        transport, far = await loop.create_connection(lambda: _End(delay_s), _HOST, target)
        near.other, far.other = transport, near.transport

    def accept() -> _End:
        near = _End(delay_s)
        task = loop.create_task(connect(near))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    server = await loop.create_server(accept, _HOST, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
