"""Ends connections that hold what others need: slow heads, answers that nobody reads, too many of one address.

Granian keeps its connections to itself, and knows one time-out for a head and for the pause between two requests. The
kernel knows them as well: the open files of this process, and how much has come and gone by each (Linux only).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from api.server.addresses import counted_as

from .options import ServerOptions

#: In `tcp_info`: segments under way, bytes acknowledged, bytes received, bytes that were never sent.
_INFO = struct.Struct("=24xI92xQQ8xI")
_FILES = "/proc/self/fd"
_LOOK_EVERY_S = 1.0


class Peer(NamedTuple):
    """One connection at one moment. `name`: its other end, as `name_of` writes it."""

    file: int
    address: str
    name: str
    received: int
    acknowledged: int
    #: Whether something waits to be sent or acknowledged.
    sending: bool


@dataclass(slots=True)
class _Known:
    """What is known of a connection. Times are monotonic; `head_since`: since when a head has been awaited."""

    requests: int
    received: int
    acknowledged: int
    head_since: float | None
    moved_at: float
    idle_since: float


class Connections:
    """A worker's connections. `asked` is called on Granian's thread, all else on one other."""

    def __init__(
        self,
        options: ServerOptions,
        peers: Callable[[], Iterator[Peer]],
        end: Callable[[Peer], None],
    ) -> None:
        """`peers` gives all that are open, `end` ends one; see `peers_of` and `end_peer`."""
        self._options = options
        self._peers, self._end = peers, end
        self._share = max(1, options.backpressure // 4)
        self._crowded = options.backpressure * 3 // 4
        self._requests: dict[str, int] = {}  # no lock: each use is one step for the interpreter
        self._known: dict[str, _Known] = {}
        self._looked_at = float("-inf")

    def asked(self, name: str) -> None:
        """A whole head has come from there."""
        self._requests[name] = self._requests.get(name, 0) + 1

    def look(self, now: float, open_ones: Callable[[], Collection[str]]) -> None:
        """To be called some times a second. `open_ones`: from where there are requests that are not answered yet."""
        if now - self._looked_at < _LOOK_EVERY_S and len(self._known) < self._share:
            return
        self._looked_at = now
        asked = set(self._requests)
        peers = list(self._peers())
        busy = open_ones()  # after them: what they have sent has been taken by now, or counts from now on
        known = {peer.name: self._seen(peer, now, peer.name in busy) for peer in peers}
        self._known = known
        for name in asked - known.keys():  # not of those that have asked since
            self._requests.pop(name, None)
        for peer in self._to_end(peers, busy, now):
            self._end(peer)

    def _seen(self, peer: Peer, now: float, busy: bool) -> _Known:
        """What is known of it now, by what was known before."""
        requests, before = self._requests.get(peer.name, 0), self._known.get(peer.name)
        if before is None:
            head_since = None if busy or requests else now
            return _Known(requests, peer.received, peer.acknowledged, head_since, now, now)
        moved = peer.acknowledged != before.acknowledged or not peer.sending
        if busy or requests != before.requests:
            before.head_since, before.idle_since = None, now
        elif before.head_since is None and peer.received != before.received:
            before.head_since = now
        before.requests, before.received, before.acknowledged = requests, peer.received, peer.acknowledged
        before.moved_at = now if moved else before.moved_at
        return before

    def _to_end(self, peers: list[Peer], busy: Collection[str], now: float) -> Iterator[Peer]:
        waiting: dict[str, list[tuple[float, Peer]]] = defaultdict(list)
        idle: dict[str, list[tuple[float, Peer]]] = defaultdict(list)
        for peer in peers:
            known = self._known[peer.name]
            if self._is_late(known, now):
                yield peer
            elif known.head_since is not None:
                waiting[peer.address].append((known.head_since, peer))
            elif peer.name not in busy and not peer.sending:
                idle[peer.address].append((known.idle_since, peer))
        yield from self._beyond_share(waiting)
        if len(peers) >= self._crowded:
            yield from self._beyond_share(idle)

    def _is_late(self, known: _Known, now: float) -> bool:
        if now - known.moved_at > self._options.stall_timeout:
            return True
        return known.head_since is not None and now - known.head_since > self._options.head_timeout

    def _beyond_share(self, by_address: dict[str, list[tuple[float, Peer]]]) -> Iterator[Peer]:
        """Those that one address has too many, longest first: who means to ask does so soon."""
        for peers in by_address.values():
            if len(peers) > self._share:
                yield from (peer for _, peer in sorted(peers)[: len(peers) - self._share])


def name_of(client: str) -> str:
    """Granian's `scope.client`, without the zone of an IPv6 address, which others write otherwise."""
    if "%" not in client:
        return client
    address, _, port = client.rpartition("]:")
    return f"{address.partition('%')[0]}]:{port}"


def peers_of(listener: socket.socket) -> Callable[[], Iterator[Peer]]:
    """Gives the connections that were accepted from `listener` and are open in this process; none but on Linux."""
    if sys.platform != "linux":
        return lambda: iter(())
    family, port = listener.family, listener.getsockname()[1]

    def peers() -> Iterator[Peer]:
        for file in map(int, os.listdir(_FILES)):  # noqa: PTH208 (numbers; a Path for each costs ten times as much)
            if (peer := _peer(file, family, port)) is not None:
                yield peer

    return peers


def end_peer(peer: Peer) -> None:
    """Shuts the connection down, if that file is still this connection's."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(peer.file)) as held:
        if _name(held.getpeername()) == peer.name:
            held.shutdown(socket.SHUT_RDWR)


def _peer(file: int, family: int, port: int) -> Peer | None:
    """The connection of this open file; None where it is another, or no connection."""
    try:
        looked_at = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=file)
    except OSError:
        return None
    try:
        if looked_at.getsockname()[1] != port:
            return None
        address = looked_at.getpeername()
        info = looked_at.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        under_way, acknowledged, received, unsent = _INFO.unpack(info)
    except (OSError, struct.error, IndexError, TypeError):
        return None
    finally:
        looked_at.detach()
    counted = counted_as(str(address[0]))
    return Peer(file, counted, _name(address), received, acknowledged, bool(under_way or unsent))


def _name(address: tuple[object, ...]) -> str:
    host = str(address[0]).partition("%")[0]
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
