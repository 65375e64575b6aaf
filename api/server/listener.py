"""The listening socket, made by the master and shared by all workers through the fork.

The first worker that can answer opens the port: until then a client is refused, and asks the next server at once.
From then on it stays open while a worker, or all of Granian, is started again: connections wait in the queue.
"""

import contextlib
import ctypes
import errno
import socket
import struct
import sys

BACKLOG = 1024
_SO_BINDTOIFINDEX = 62
#: An interface that no packet comes by.
_NO_INTERFACE = 2**31 - 1
#: Where a listening socket's `tcp_info` has the length of its queue (`tcpi_unacked`).
_QUEUED = struct.Struct("=24xI")
_SO_ATTACH_FILTER = 26
# At a listening socket the packet begins with the TCP header; byte 13 holds its flags. Drop SYN without ACK.
_DROP_NEW = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class PortUnavailable(Exception):
    """The address cannot be listened on; the message says which and why. `is_in_use`: by another process."""

    def __init__(self, message: str, *, is_in_use: bool = False) -> None:
        super().__init__(message)
        self.is_in_use = is_in_use


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket for this address that the children inherit; to be opened. Raises `PortUnavailable`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise PortUnavailable(f"cannot listen on {host}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unavailable(host, port, error) from error
    listener.set_inheritable(True)
    return listener


def open_port(listener: socket.socket) -> None:
    """Let connections come, from now on and for all who share it. Raises `PortUnavailable`.

    Two that have bound one address at the same moment learn only here which of them has it.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _unavailable(host, port, error) from error


def _unavailable(host: str, port: int, error: OSError) -> PortUnavailable:
    is_in_use = error.errno == errno.EADDRINUSE
    why = "it is in use by another process" if is_in_use else error.strerror
    return PortUnavailable(f"cannot listen on {host}:{port}: {why}", is_in_use=is_in_use)


def turn_away(listener: socket.socket) -> None:
    """Refuse new connections, while those that have begun are still accepted (Linux; elsewhere nothing).

    Closing a listener resets what waits in its queue, so it is closed when that is empty. Bound to an interface that
    there is none of, it is not found for new connections: the kernel refuses them, as if the port were closed.
    """
    if sys.platform != "linux":
        return
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
    except OSError:
        _drop_new(listener)


def queued(listener: socket.socket) -> int:
    """How many connections wait to be accepted (Linux; elsewhere it is not known, and 0)."""
    if sys.platform != "linux":
        return 0
    try:
        [waiting] = _QUEUED.unpack(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED.size))
    except (OSError, struct.error):
        return 0
    return int(waiting)


def _drop_new(listener: socket.socket) -> None:
    """For kernels before 5.7. A connection attempt is not answered; its client's kernel tries again and is refused."""
    instructions = (_Instruction * len(_DROP_NEW))(*(_Instruction(*each) for each in _DROP_NEW))
    program = _Program(len(_DROP_NEW), instructions)
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
