"""Finds, among this process's own sockets, the connections that have asked and got no answer, and ends them (Linux).
Granian does not tell an application which connection a request came by; the kernel's counters tell enough."""

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED = 1
_LAST_SENT_MS, _LAST_RECEIVED_MS, _PACKETS_IN, _PACKETS_OUT = 44, 52, 152, 156  # offsets in struct tcp_info
_SAME_S = 0.1

Peer = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Asked:
    since: float
    last_sent: float


class Unanswered:
    """Which connections to `port` are owed an answer, and since when, as far as they have been looked at."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._asked: dict[Peer, _Asked] = {}

    def look(self, now: float) -> None:
        """Look at every connection. `now` is monotonic seconds; call it some times a second while it matters."""
        before, self._asked = self._asked, {}
        for connection in _connections(self._port):
            asked, sent = _asked(connection)
            if asked:
                peer, last_sent = _peer(connection), now - sent
                known = before.get(peer)
                same = known is not None and abs(known.last_sent - last_sent) < _SAME_S
                self._asked[peer] = known if known and same else _Asked(now, last_sent)

    def forget(self) -> None:
        """Nothing is being looked for any more."""
        self._asked = {}

    def end(self, count: int, longer_than: float, now: float) -> None:
        """End so many connections at most, the longest unanswered first, if unanswered for more than these seconds."""
        due = sorted((asked.since, peer) for peer, asked in self._asked.items() if now - asked.since > longer_than)
        chosen = {peer for _, peer in due[:count]}
        for connection in _connections(self._port) if chosen else ():
            if _peer(connection) in chosen:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _connections(port: int) -> Iterator[socket.socket]:
    """This process's open connections to its own port, each as a duplicate that is closed after use."""
    if sys.platform != "linux":
        return
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(entry.stat().st_mode):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and _is_client(connection, port):
                    yield connection


def _is_client(connection: socket.socket, port: int) -> bool:
    """The database's connections end at another port; the listener itself is not established."""
    return connection.getsockname()[1] == port and _info(connection)[0] == _ESTABLISHED


def _peer(connection: socket.socket) -> Peer:
    address = connection.getpeername()
    return str(address[0]), int(address[1])


def _asked(connection: socket.socket) -> tuple[bool, float]:
    """Whether the peer has sent something since it was last sent something, and how many seconds ago that was."""
    info = _info(connection)
    sent, received, packets_in, packets_out = (
        struct.unpack_from("=I", info, offset)[0]
        for offset in (_LAST_SENT_MS, _LAST_RECEIVED_MS, _PACKETS_IN, _PACKETS_OUT)
    )
    return received < sent or (packets_in > 0 and packets_out == 0), sent / 1000


def _info(connection: socket.socket) -> bytes:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
