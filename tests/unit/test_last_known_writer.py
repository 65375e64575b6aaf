"""What is put by for the time without a ledger: counted where the log has moved, else carried on from what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from api.node.clock import Clock
from api.stats.last_known import UNKNOWN, Counts, last_known_counts
from api.supervisor.last_known_writer import LastKnownWriter, with_heartbeats
from failover import Identity, Role, State, Status
from failover.heartbeat import Beat, Report
from failover.queue import QueueStats
from tests.support.clock import FakeClock

NODES = (
    {"id": "n1", "beat_age_s": 0.5},
    {"id": "n2", "beat_age_s": 9.0},
    {"id": "gone", "beat_age_s": 700.0, "presence": "silent"},
)


class Counted:
    """A ledger that says how often it was counted."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self.times, self.fresh_s = clock, 0, 6.0

    def counts(self) -> Counts:
        self.times += 1
        return replace(UNKNOWN, at=self._clock(), licenses={"total": self.times}, nodes=NODES)


def status(**fields: Any) -> Status:
    beats = tuple(
        Beat(
            identity=Identity.new(node, rank),
            age_s=age,
            beat_at=0.0,
            started_at=0.0,
            report=Report(role="standby", state="STANDBY"),
        )
        for node, rank, age in (("n1", 1, 0.75), ("n2", 2, 1.25), ("n2", 2, 300.0))
    )
    known: dict[str, Any] = dict.fromkeys(Status.__dataclass_fields__)
    known |= {"me": Identity.new("n1", 1), "role": Role.PRIMARY, "state": State.LEADING, "leading": True, "epoch": 7}
    known |= {"ledger_reachable": True, "lease_holder": "n1", "lease_expires_in_s": 4.25, "beats": beats}
    known |= {"queue": QueueStats(0, 0, None, 0, 0), "doubled": {}, "jobs": {}, "pending": 0}
    return Status(**known | fields)


class Scene:
    def __init__(self, folder: Path) -> None:
        self.clock, self.head, self.status = FakeClock(), 5, status()
        self.ledger = Counted(self.clock)
        wall = Clock(self.clock, self.clock)
        self.last_known_writer = LastKnownWriter(
            folder,
            self.ledger,
            wall,
            lambda: self.status,
            lambda: self.head,
            self.clock,  # type: ignore[arg-type]
        )

    def passes(self, seconds: float) -> int:
        """How often it was counted after so long, written down every 15 s."""
        for _ in range(int(seconds / 15)):
            self.clock.time += 15.0
            self.last_known_writer.write()
        return self.ledger.times


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_it_is_counted_when_the_log_has_moved_and_every_five_minutes(scene: Scene) -> None:
    assert scene.passes(15) == 1
    assert scene.passes(285) == 1
    assert scene.passes(30) == 2
    scene.head += 1
    assert scene.passes(15) == 3


def test_what_the_supervisor_knows_is_put_by_without_asking(scene: Scene, tmp_path: Path) -> None:
    scene.passes(45)
    kept = last_known_counts(tmp_path)
    assert (scene.ledger.times, kept.at) == (1, scene.clock())
    assert {node["id"]: node["beat_age_s"] for node in kept.nodes} == {"n1": 0.8, "n2": 1.2, "gone": 700.0}
    assert {node["id"]: node["presence"] for node in kept.nodes} == {"n1": "beating", "n2": "beating", "gone": "silent"}
    assert (kept.lease["holder"], kept.lease["epoch"], kept.lease["expires_in_s"]) == ("n1", 7, 4.2)


def test_a_node_without_its_ledger_puts_nothing_newer_by(scene: Scene, tmp_path: Path) -> None:
    scene.passes(15)
    before = last_known_counts(tmp_path)
    scene.status = status(ledger_reachable=False)
    scene.passes(30)
    assert last_known_counts(tmp_path) == before


def test_a_lease_that_is_over_has_no_holder() -> None:
    lease = with_heartbeats(UNKNOWN, status(lease_expires_in_s=-0.5), 0.0).lease
    assert (lease["holder"], lease["expires_in_s"]) == (None, None)
