"""Connections that hold what others need, from outside: slow heads, answers that nobody reads, many of one address."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess, until
from tests.support.small_servers import in_flight, small_app, workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is known of a connection is Linux's")


def connected(stack: contextlib.ExitStack, server: ServerProcess, said: bytes = b"") -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
    client.sendall(said)
    return client


def is_ended(client: socket.socket) -> bool:
    """Whether its other side has ended it; what has come until then is thrown away."""
    client.settimeout(0.01)
    try:
        while client.recv(1_000_000):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


HEADS = {"nothing": b"", "half a head": b"GET /pid HTTP/1.1\r\nHost: x\r\n", "half a line": b"GE"}


@pytest.mark.parametrize("said", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("before", [b"", b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
def test_a_head_that_does_not_come_in_time_ends_its_connection(said: bytes, before: bytes) -> None:
    if before and not said:
        return  # idle
    with small_app(workers=1, head_timeout=2) as server, contextlib.ExitStack() as stack:
        client = connected(stack, server, before)
        if before:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            time.sleep(1.5)  # between the two: that the head begins later is to be seen
        client.sendall(said)
        began = time.monotonic()

        def drips() -> bool:
            with contextlib.suppress(OSError):
                client.send(said and b"x")
            return is_ended(client)

        until(drips, "its end")
        assert time.monotonic() - began > 1.5
        assert server.answers("/pid")


def test_a_connection_that_idles_or_waits_for_its_answer_is_kept() -> None:
    with small_app(workers=1, head_timeout=1, stall_timeout=1) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(connection):
            connection.connect()
            first = connection.sock
            for path in ("/pid", "/slow?s=4", "/pid"):
                connection.request("GET", path)
                answer = connection.getresponse()
                assert (answer.status, bool(answer.read())) == (200, True)
                time.sleep(3)  # idle, for longer than a head may take
                assert connection.sock is first


def test_one_address_does_not_keep_others_out() -> None:
    with small_app(workers=1, backpressure=40, head_timeout=60) as server, contextlib.ExitStack() as stack:
        clients = [connected(stack, server, b"GET /pid HT") for _ in range(100)]
        other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20, source_address=("127.0.0.2", 0))
        with contextlib.closing(other):
            other.request("GET", "/pid")
            assert other.getresponse().status == 200
        until(lambda: sum(not is_ended(client) for client in clients) <= 10, "no more than its share")


def test_idle_connections_of_one_address_do_not_keep_others_out() -> None:
    with small_app(workers=1, backpressure=40) as server, contextlib.ExitStack() as stack:
        asked = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
        clients = [connected(stack, server, asked) for _ in range(60)]
        other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20, source_address=("127.0.0.2", 0))
        with contextlib.closing(other):
            other.request("GET", "/pid")
            assert other.getresponse().status == 200
        assert all(client.recv(15) for client in clients[:20]), "each was answered before it was ended"


def test_a_reader_that_stops_reading_is_ended_and_gives_its_place_back() -> None:
    with small_app(workers=1, places=1, stall_timeout=2, hang_timeout=3) as server, contextlib.ExitStack() as stack:
        before = workers(server)
        for path in (b"/flood?n=1000", b"/large"):
            reader = connected(stack, server, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert reader.recv(4096)
            until(lambda: in_flight(server) == 0 and server.answers("/pid"), "its end")
            # What it reads then is not the whole: its last chunk is missing.
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := reader.recv(1_000_000):
                    received = received[-10:] + part
            assert not received.endswith(b"0\r\n\r\n")
        assert workers(server) == before


def test_a_slow_reader_is_not_ended(tmp_path: Path) -> None:
    with small_app(workers=1, places=1, stall_timeout=2) as server, contextlib.ExitStack() as stack:
        reader = stack.enter_context(socket.socket())
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(b"GET /flood?n=60 HTTP/1.0\r\nHost: x\r\n\r\n")
        end, size = time.monotonic() + 8, 0
        while part := reader.recv(1_000_000 if time.monotonic() > end else 20_000):
            size += len(part)
            time.sleep(0.1 if time.monotonic() < end else 0)
        assert size > 6_000_000
