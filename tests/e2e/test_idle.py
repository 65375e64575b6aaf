"""Nodes that nobody asks still take over as fast as ever: what is asserted is in the ledger's failovers."""

from __future__ import annotations

import signal
import time

import pytest
from sqlalchemy import text

from tests.support.cluster import Member, Site, plays
from tests.support.processes import until

_TIMEOUT_S, _BEAT_S = 6.0, 1.5
#: In its first seconds a node leaves a free lease to rank 1, as after an outage; and it is asked until it is ready.
_REST_S = 8.0
#: What two noisy cores may add.
_NOISE_S = 4.0


def rest(site: Site, *members: Member) -> None:
    """Nobody asks them anything for a while."""
    until(lambda: len(beats(site)) >= len(members), "all beat")
    time.sleep(_REST_S)


def beats(site: Site) -> list[str]:
    with site.database.reading() as connection:
        return list(
            connection.execute(text("SELECT node FROM heartbeats WHERE state IN ('LEADING', 'STANDBY')")).scalars()
        )


def failover(site: Site) -> dict[str, object]:
    (found,) = until(site.failovers, "a failover", 60)
    return found


@pytest.mark.slow
def test_an_idle_standby_takes_the_lease_of_a_killed_leader_as_soon_as_it_ends(site: Site) -> None:
    one, two = site.two()
    rest(site, one, two)
    one.server.kill_tree()
    found = failover(site)
    print("gap_s", found["gap_s"])
    assert (found["kind"], found["to_node"]) == ("takeover", "node-2")
    assert _TIMEOUT_S - 0.1 <= float(str(found["gap_s"])) < _TIMEOUT_S + _NOISE_S


@pytest.mark.slow
def test_an_idle_standby_takes_a_lease_that_is_resigned_at_once(site: Site) -> None:
    one, two = site.two(HEARTBEAT_TIMEOUT=f"{10 * _TIMEOUT_S:g}")
    rest(site, one, two)
    one.server.signal(signal.SIGTERM)
    found = failover(site)
    print("gap_s", found["gap_s"])
    assert (found["kind"], found["to_node"]) == ("takeover", "node-2")
    assert float(str(found["gap_s"])) < _BEAT_S + _NOISE_S
    plays((two, "backup", 2))
    assert one.server.wait() == 0
