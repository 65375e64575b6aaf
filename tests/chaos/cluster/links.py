"""TCP in between: links that pass everything on, or hold it, slow it, refuse it, or cut it off, each way by itself.

A held direction is a silent partition: nothing arrives, nobody is told, and what was sent arrives late when it heals,
as it does when TCP sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar, overload

_HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)
_DEADLINE_S = 10.0

T = TypeVar("T")


class _End(asyncio.Protocol):
    """One end of a connection. What comes in here goes out at `other`: `way` is that direction's state."""

    def __init__(self, link: Link, way: str) -> None:
        self._link, self._way = link, way
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        self._link.heard(self, self._way, data)
        self._later(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._link.open.discard(self)
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self._waiting.append((loop.time() + self._link.delay_s, data))
        loop.call_later(self._link.delay_s, self.pass_on)

    def pass_on(self) -> None:
        """Sends on what is due, unless this direction is held or the other end is still being connected."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0][0] <= now + 0.001 and self._way not in self._link.held:
            if self.other is None or self.other.transport is None:
                return
            _, data = self._waiting.popleft()
            if data is None:
                self.other.transport.close()
                self._link.closed(self)
            else:
                self.other.transport.write(data)

    def reset(self) -> None:
        """Ends the connection as a crash does: the peer gets RST."""
        if self.transport is not None:
            taken = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class Link:
    """Everything that connects to loopback `port` reaches `target` at `host`. Its methods may be called by any thread.

    `up` is the way from who connects to the target, `down` the way back.
    """

    def __init__(self, network: Network, port: int, target: int, host: str) -> None:
        self.port, self.target, self._host = port, target, host
        self.held: frozenset[str] = frozenset()
        self.delay_s = 0.0
        #: Bytes that came in so far on each way, and who else is told of them: with the end where they came in.
        self.passed = {"up": 0, "down": 0}
        self.tap: Callable[[object, str, bytes], None] | None = None
        self._network = network
        #: Connections, and those of them that have something to pass on, which may be over by now.
        self.open: set[_End] = set()
        self._ends: set[_End] = set()
        self._refuses = False
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        network.do(self._listen)

    def hold(self, *ways: str) -> None:
        """From now on nothing arrives on these ways, `up` and `down`, and nobody is told."""
        self._network.do(lambda: self._set_held(frozenset(ways)))

    def slow(self, delay_s: float) -> None:
        """From now on everything arrives so much later, each way."""
        self.delay_s = delay_s

    def refuse(self) -> None:
        """From now on there is nobody at this port; open connections are reset."""
        self._network.do(self._close)

    def reset(self) -> None:
        """Resets the open connections; new ones are welcome."""
        self._network.do(self._reset)

    def release(self) -> None:
        """What was held arrives now, and nothing is slow any more; a link that refuses goes on refusing."""
        self.slow(0.0)
        self._network.do(lambda: self._set_held(frozenset()))

    def heal(self) -> None:
        """All is well again: what was held arrives now."""
        self.release()
        self.listen()

    def listen(self) -> None:
        """From now on who comes is taken."""
        self._network.do(self._listen)

    def heard(self, end: _End, way: str, data: bytes) -> None:
        self.passed[way] += len(data)
        if self.tap is not None:
            self.tap(end, way, data)

    def opened(self, end: _End) -> None:
        self.open.add(end)
        if self._refuses:  # it was accepted a moment before
            end.reset()
        else:
            self._ends.add(end)

    def closed(self, end: _End) -> None:
        self._ends.discard(end)

    def _set_held(self, ways: frozenset[str]) -> None:
        self.held = ways
        for end in tuple(self._ends):
            end.pass_on()

    def _reset(self) -> None:
        for end in tuple(self._ends):
            end.reset()
        self._ends.clear()

    async def _close(self) -> None:
        self._refuses = True
        server, self._server = self._server, None
        if server is not None:
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            # What is accepted by now gets its transport first: for a server that is closed asyncio fails to make
            # one, and the connection would stay open for ever.
            await asyncio.sleep(0)
            server.close()
        self._reset()

    async def _listen(self) -> None:
        self._refuses = False
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, _HOST, self.port, reuse_address=True)

    def _accept(self) -> _End:
        near = _End(self, "up")
        task = asyncio.get_running_loop().create_task(self._connect(near))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return near

    async def _connect(self, near: _End) -> None:
        far = _End(self, "down")
        far.other = near
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, self._host, self.target)
        except OSError:
            near.reset()
            self._ends.discard(near)
            return
        near.other = far
        near.pass_on()


class Network:
    """The thread that all links live on."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._links: list[Link] = []

    def link(self, port: int, target: int, host: str = _HOST) -> Link:
        self._links.append(Link(self, port, target, host))
        return self._links[-1]

    @overload
    def do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T: ...

    @overload
    def do(self, work: Callable[[], T]) -> T: ...

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, done by the network's thread; what it gives is awaited there if it can be."""

        async def run() -> Any:
            done = work()
            return await done if isinstance(done, Coroutine) else done

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_DEADLINE_S)

    async def _say_good_bye(self) -> None:
        """What was being accepted or connected when its link was closed comes about first, and is reset then."""
        mine = asyncio.current_task()
        while any(link.open for link in self._links) or asyncio.all_tasks() - {mine}:
            for end in [end for link in self._links for end in link.open]:
                end.reset()
            await asyncio.sleep(0.01)

    def close(self) -> None:
        for link in self._links:
            link.refuse()
        self.do(self._say_good_bye)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE_S)
        self._loop.close()


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network, ended afterwards."""
    made = Network()
    try:
        yield made
    finally:
        made.close()
