"""The failback's gate: what has to be done before a backup may hand the lease back to rank 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.config import Config
from failover.heartbeat import Report
from failover.memory import MemoryHeartbeatStore, MemoryLeaseStore
from failover.model import Identity
from failover.status import Hooks
from failover.supervisor import Supervisor
from tests.support.clock import FakeClock

CONFIG = Config()
ONE, TWO, THREE = (Identity(f"instance-{rank}", f"n{rank}", rank) for rank in (1, 2, 3))


class Backup:
    """A backup of rank 2 that beats once an interval, and what the others of its cluster say."""

    def __init__(self) -> None:
        self.clock, self.head = FakeClock(), 0
        self.beats = MemoryHeartbeatStore(self.clock)
        hooks = Hooks(head_seq=lambda: self.head)
        self.supervisor = Supervisor(
            TWO, CONFIG, MemoryLeaseStore(self.clock), self.beats, hooks=hooks, monotonic=self.clock
        )

    def beat(self, head: int, *others: tuple[Identity, Report]) -> int:
        """The next beat, with the log's head there and these others beating just before; gives what is pending."""
        self.clock.move(CONFIG.heartbeat_interval)
        self.head = head
        for identity, report in others:
            self.beats.write(identity, report)
        self.supervisor.beat()
        return self.supervisor.status().pending


@pytest.fixture
def backup() -> Backup:
    return Backup()


def says(applied: int = 0, queue: int = 0, oldest_s: float | None = None) -> Report:
    return Report(role="standby", state="STANDBY", applied_seq=applied, queue=queue, queue_oldest_s=oldest_s)


def test_a_rank_1_that_follows_while_intake_goes_on_has_nothing_pending(backup: Backup) -> None:
    found = [backup.beat(head, (ONE, says(applied=head - 100))) for head in range(1_000, 2_000, 100)]
    assert found == [0] * len(found)


def test_a_rank_1_that_falls_behind_the_head_of_two_beats_ago_is_waited_for(backup: Backup) -> None:
    for head in (1_000, 1_100):
        backup.beat(head, (ONE, says(applied=900)))
    assert backup.beat(1_200, (ONE, says(applied=900))) == 100
    assert backup.beat(1_300, (ONE, says(applied=950))) == 150
    assert backup.beat(1_300, (ONE, says(applied=1_200))) == 0


def test_a_rank_1_that_is_not_heard_of_is_not_waited_for_and_one_that_is_back_is(backup: Backup) -> None:
    for head in (10, 20, 30):
        assert backup.beat(head) == 0
    assert backup.beat(40, (ONE, says(applied=5))) == 15


def test_queued_rows_of_whoever_beats_are_waited_for_once_they_are_not_just_intake(backup: Backup) -> None:
    ready = (ONE, says())
    assert backup.beat(0, ready, (THREE, says(queue=3, oldest_s=0.5))) == 0
    assert backup.beat(0, ready, (THREE, says(queue=3, oldest_s=2.5))) == 3
    assert backup.beat(0, (ONE, says(queue=2, oldest_s=9.0)), (THREE, says(queue=3, oldest_s=9.0))) == 5


def test_a_dead_node_s_queue_does_not_block(backup: Backup) -> None:
    assert backup.beat(0, (ONE, says()), (THREE, says(queue=3, oldest_s=9.0))) == 3
    found = [backup.beat(0, (ONE, says())) for _ in range(6)]
    assert found[0] == 3
    assert found[-1] == 0


def test_the_backup_s_own_rows_count_as_everybody_s(backup: Backup) -> None:
    gauge = backup.supervisor._gauge
    gauge.stats = replace(gauge.stats, pending=4, oldest_s=3.0)
    assert backup.beat(0, (ONE, says())) == 4
