"""A node's way to a database that moves: over one address that moves with it, or over two hosts of one URL."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.cluster.links import Link, Network, network
from tests.chaos.cluster.route import Route
from tests.support.postgres import free_port


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@contextlib.contextmanager
def server(name: bytes) -> Iterator[int]:
    """Says its name to everybody; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near:
                    near.sendall(name)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.fixture
def old() -> Iterator[int]:
    with server(b"old") as port:
        yield port


@pytest.fixture
def new() -> Iterator[int]:
    with server(b"new") as port:
        yield port


def at(link: Link) -> bytes | None:
    """Who is there; None where the port refuses."""
    try:
        with socket.create_connection(("127.0.0.1", link.port), 10) as near:
            near.settimeout(10)
            return near.recv(3)
    except ConnectionRefusedError:
        return None


def test_a_single_address_moves_with_the_database(net: Network, old: int, new: int) -> None:
    link = net.link(free_port(), old)
    route = Route(link)
    route.add(new)
    assert at(link) == b"old"
    route.move(new)
    assert at(link) == b"new"
    route.drop(old)
    assert at(link) == b"new"


def test_a_single_address_is_nobody_s_between_a_server_that_died_and_the_one_after_it(
    net: Network, old: int, new: int
) -> None:
    link = net.link(free_port(), old)
    route = Route(link)
    route.drop(old)
    assert at(link) is None
    route.move(new)
    assert at(link) == b"new"


def test_of_two_hosts_the_second_is_there_once_it_has_a_server_and_the_first_until_it_has_none(
    net: Network, old: int, new: int
) -> None:
    one, two = net.link(free_port(), old), net.link(free_port(), old)
    route = Route(one, two)
    assert (at(one), at(two)) == (b"old", None)
    route.add(new)
    route.move(new)
    assert (at(one), at(two)) == (b"old", b"new")
    route.drop(old)
    assert (at(one), at(two)) == (None, b"new")
    with server(b"3rd") as third:
        route.add(third)
        assert (at(one), at(two)) == (b"3rd", b"new")


def test_a_route_that_is_refused_stays_so_while_servers_come_and_go_and_heals_to_those_that_are_there(
    net: Network, old: int, new: int
) -> None:
    one, two = net.link(free_port(), old), net.link(free_port(), old)
    route = Route(one, two)
    route.refuse()
    route.add(new)
    assert (at(one), at(two)) == (None, None)
    route.drop(old)
    route.heal()
    assert (at(one), at(two)) == (None, b"new")


def test_a_partition_meets_the_host_that_is_added_as_well(net: Network, old: int, new: int) -> None:
    one, two = net.link(free_port(), old), net.link(free_port(), old)
    route = Route(one, two)
    route.hold("down")
    route.add(new)
    with socket.create_connection(("127.0.0.1", two.port), 10) as near:
        near.settimeout(0.3)
        with pytest.raises(TimeoutError):
            near.recv(3)
        route.heal()
        near.settimeout(10)
        assert near.recv(3) == b"new"
