"""A real database's clock is set forward and back under real nodes: one leads, the right one, and all is answered."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster.machine import WallClock, clock_library
from tests.e2e.test_bad_states import missing
from tests.support.cluster import Asking, Site, Watching, plays
from tests.support.postgres import PostgresServer
from tests.support.processes import until

_TIMEOUT_S = 6.0
#: Nodes go by the ledger's clock: a client that signs its calls would have to send them a second time, with that.
_ASKED_BY_ANY_CLOCK = {"REQUIRE_SIGNATURE": "false"}
#: A takeover, with a look before it and one after it, on a busy machine.
_TAKEOVER_S = 3 * _TIMEOUT_S


@pytest.fixture
def clock() -> Iterator[WallClock]:
    """The clock of `site`'s database."""
    folder = Path(tempfile.mkdtemp(prefix="clock-"))
    folder.chmod(0o755)  # the server's account is another
    library = clock_library(folder)
    if library is None:
        missing("THERE IS NO C COMPILER: no clock can be set")
    assert library is not None
    yield WallClock(folder, library)
    shutil.rmtree(folder)


@pytest.fixture
def site(clock: WallClock, tmp_path: Path) -> Iterator[Site]:
    with PostgresServer(env=clock.env) as server:
        site = Site(server.create_database("clocks"), tmp_path)
        yield site
        site.close()


def test_the_databases_clock_set_back_as_the_leader_dies_delays_no_takeover(site: Site, clock: WallClock) -> None:
    one, two = site.two(**_ASKED_BY_ANY_CLOCK)
    sold = site.bought(one, two)
    one.server.kill_tree()
    clock.shift(-600)
    died_at = time.monotonic()
    until(lambda: two.part == ("backup", 2), "rank 2 takes over", _TAKEOVER_S)
    assert time.monotonic() - died_at < _TAKEOVER_S
    assert two.validate(sold).json()["code"] == "VALID"
    [failover] = site.failovers()
    assert (failover["kind"], failover["to_node"]) == ("takeover", "node-2")
    assert 0 < failover["gap_s"] < _TAKEOVER_S


def test_the_databases_clock_set_back_in_backup_mode_hands_nothing_to_the_dead_primary(
    site: Site, clock: WallClock
) -> None:
    one, two = site.two(**_ASKED_BY_ANY_CLOCK)
    sold = site.bought(one, two)
    one.server.kill_tree()
    plays((two, "backup", 2))
    with Watching(site.database) as watching, Asking(two, sold) as asking:
        clock.shift(-300)
        time.sleep(2 * _TIMEOUT_S + 3.0)  # a failback would have come, and a second one
    assert len(watching.held) == 1
    assert [row["kind"] for row in site.failovers()] == ["takeover"]
    assert set(asking.told) == {"VALID"}
    back = site.node(1, **_ASKED_BY_ANY_CLOCK).ready()
    plays((back, "primary", 3), (two, "standby", 3), deadline=60)


@pytest.mark.parametrize("skew", [600, -600, 3 * 365 * 86_400])
def test_whatever_the_databases_clock_does_a_leader_that_lives_goes_on(site: Site, clock: WallClock, skew: int) -> None:
    one, two = site.two()
    with Watching(site.database) as watching:
        for shift in (skew, 0):
            clock.shift(shift)
            time.sleep(_TIMEOUT_S + 1.0)  # a takeover would have come
            plays((one, "primary", 1), (two, "standby", 1))
    assert len(watching.held) == 1
    assert site.failovers() == []


def test_a_backup_that_starts_beside_beats_of_a_moment_to_come_leaves_the_dead_alone(
    site: Site, clock: WallClock
) -> None:
    """Its own first sight of the dead primary is a beat that lies five minutes ahead."""
    one, two = site.two()
    one.server.kill_tree()
    two.server.kill_tree()
    clock.shift(-300)
    again = site.node(2, copy="-again").ready()
    until(lambda: again.part[0] == "backup", "rank 2 takes over", _TAKEOVER_S)
    with Watching(site.database) as watching:
        time.sleep(_TIMEOUT_S + 5.0)
    assert len(watching.held) == 1
