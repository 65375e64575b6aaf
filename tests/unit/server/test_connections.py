"""Which connections a worker ends: by what the kernel says of them, without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.server import ServerOptions
from api.server.connections import Connections, Peer, name_of

OPTIONS = ServerOptions(backpressure=16, head_timeout=10, stall_timeout=30)
SHARE = 4


class Stage:
    """Connections that the test makes up, and which of them were ended."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.busy: set[str] = set()
        self.ended: list[str] = []
        self.connections = Connections(OPTIONS, self._open, self._end)

    def _open(self) -> Iterator[Peer]:
        yield from list(self.peers.values())

    def _end(self, peer: Peer) -> None:
        self.ended.append(peer.name)
        del self.peers[peer.name]

    def has(
        self, name: str, *, address: str = "a", received: int = 0, acknowledged: int = 0, sending: bool = False
    ) -> None:
        self.peers[name] = Peer(9, address, name, received, acknowledged, sending)

    def asks(self, name: str) -> None:
        self.connections.asked(name)

    def look(self, *moments: float) -> list[str]:
        for moment in moments:
            self.connections.look(moment, lambda: self.busy)
        return self.ended


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_one_that_says_nothing_or_half_a_head_is_ended_after_the_heads_time(stage: Stage) -> None:
    stage.has("silent")
    stage.has("drips", received=10)
    assert stage.look(0, 5) == []
    stage.has("drips", received=11)
    assert stage.look(10) == []
    assert sorted(stage.look(11)) == ["drips", "silent"]


def test_one_that_idles_between_two_requests_is_left(stage: Stage) -> None:
    stage.has("kept", received=100)
    stage.asks("kept")
    assert stage.look(0, 11, 60) == []
    stage.has("kept", received=200)
    stage.asks("kept")
    assert stage.look(61, 72, 100) == []


def test_half_a_second_head_has_as_much_time_as_the_first(stage: Stage) -> None:
    stage.has("kept", received=100)
    stage.asks("kept")
    stage.look(0, 40)
    stage.has("kept", received=105)
    assert stage.look(41, 50) == []
    stage.has("kept", received=106)
    assert stage.look(52) == ["kept"]


def test_one_that_is_being_answered_or_sends_its_body_is_left(stage: Stage) -> None:
    stage.has("busy", received=100)
    stage.asks("busy")
    stage.busy = {"busy"}
    for second in range(0, 60, 2):
        stage.has("busy", received=100 + second)
        assert stage.look(float(second)) == []


def test_an_answer_that_nobody_reads_is_ended_and_one_that_is_read_slowly_is_not(stage: Stage) -> None:
    stage.busy = {"reads", "does not"}
    for second in range(0, 30, 2):
        stage.has("reads", acknowledged=second, sending=True)
        stage.has("does not", acknowledged=7, sending=True)
        assert stage.look(float(second)) == []
    stage.has("reads", acknowledged=31, sending=True)
    assert stage.look(31) == ["does not"]


def test_of_one_address_that_has_more_than_its_share_of_slow_heads_the_longest_go(stage: Stage) -> None:
    for number in range(SHARE + 2):
        stage.has(f"slow {number}", address="many")
        stage.look(float(number))
    stage.has("other", address="other")
    assert stage.look(7) == ["slow 0", "slow 1"]


def test_idle_ones_of_one_address_go_only_where_it_is_crowded(stage: Stage) -> None:
    for number in range(11):
        stage.has(f"idle {number}", address="many", received=10)
        stage.asks(f"idle {number}")
    assert stage.look(0, 5) == []
    stage.has("one more", address="other", received=10)
    stage.asks("one more")
    assert len(stage.look(6)) == 11 - SHARE
    assert "one more" not in stage.ended


def test_a_request_that_came_while_it_looked_is_not_forgotten(stage: Stage) -> None:
    stage.look(0)
    real = stage.connections._peers

    def comes_meanwhile() -> Iterator[Peer]:
        yield from real()
        stage.asks("new")

    stage.connections._peers = comes_meanwhile
    stage.look(2)
    stage.connections._peers = real
    stage.has("new", received=10)
    assert stage.look(4, 20) == []


def test_a_connection_has_one_name_with_and_without_its_zone() -> None:
    assert name_of("127.0.0.1:80") == "127.0.0.1:80"
    assert name_of("[::1]:80") == "[::1]:80"
    assert name_of("[fe80::1%2]:80") == "[fe80::1]:80"
