"""The network of the chaos runs does to connections what it says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.chaos.cluster.links import Link, Network, network
from tests.support.postgres import free_port

_SHORT_S = 0.3


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@contextlib.contextmanager
def connected(link: Link, listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection over the link."""
    with socket.create_connection(("127.0.0.1", link.port), 10) as near:
        far, _ = listener.accept()
        with far:
            for end in (near, far):
                end.settimeout(10)
            yield near, far


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(10)
        yield made


@pytest.fixture
def link(net: Network, listener: socket.socket) -> Link:
    return net.link(free_port(), listener.getsockname()[1])


def hears_nothing(end: socket.socket) -> bool:
    end.settimeout(_SHORT_S)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(10)
    return False


@pytest.mark.parametrize("way", ["up", "down"])
def test_what_is_held_one_way_arrives_late_and_the_other_way_goes_on(
    link: Link, listener: socket.socket, way: str
) -> None:
    with connected(link, listener) as (near, far):
        link.hold(way)
        sender, receiver = (near, far) if way == "up" else (far, near)
        sender.sendall(b"held")
        assert hears_nothing(receiver)
        receiver.sendall(b"passed")
        assert sender.recv(6) == b"passed"
        link.heal()
        assert receiver.recv(4) == b"held"


def test_an_end_that_hangs_up_behind_a_partition_is_noticed_when_it_heals(link: Link, listener: socket.socket) -> None:
    with connected(link, listener) as (near, far):
        link.hold("up", "down")
        near.close()
        assert hears_nothing(far)
        link.heal()
        assert far.recv(1) == b""


def test_a_refused_link_resets_what_is_open_and_takes_nobody_until_it_is_well(
    link: Link, listener: socket.socket
) -> None:
    with connected(link, listener) as (near, far):
        link.refuse()
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", link.port), 10)
    link.heal()
    with connected(link, listener) as (near, far):
        near.sendall(b"again")
        assert far.recv(5) == b"again"


def test_a_reset_link_welcomes_new_connections(link: Link, listener: socket.socket) -> None:
    with connected(link, listener) as (near, _far):
        link.reset()
        with pytest.raises(ConnectionResetError):
            near.recv(1)
    with connected(link, listener) as (near, far):
        far.sendall(b"hello")
        assert near.recv(5) == b"hello"


def test_a_slow_link_keeps_order_and_takes_its_time_each_way(link: Link, listener: socket.socket) -> None:
    with connected(link, listener) as (near, far):
        link.slow(0.1)
        sent = time.monotonic()
        for part in (b"one ", b"two ", b"three"):
            near.sendall(part)
        received = b""
        while len(received) < 13:
            received += far.recv(13)
        assert received == b"one two three"
        far.sendall(b"!")
        assert near.recv(1) == b"!"
        assert time.monotonic() - sent >= 0.2


def test_a_link_to_nobody_resets_who_comes(net: Network) -> None:
    link = net.link(free_port(), free_port())
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(("127.0.0.1", link.port), 10) as near,
    ):
        assert near.recv(1) == b""


def test_a_connection_that_is_accepted_in_the_moment_in_which_its_link_closes_is_reset(
    net: Network, link: Link
) -> None:
    async def close_while_accepting() -> list[socket.socket]:
        near = [socket.create_connection(("127.0.0.1", link.port), 10) for _ in range(5)]
        for _ in range(2):  # of the loop's rounds: by then they are accepted, and have no transport yet
            await asyncio.sleep(0)
        await link._close()
        return near

    for near in net.do(close_while_accepting):
        with near, pytest.raises(ConnectionResetError):
            near.recv(1)
