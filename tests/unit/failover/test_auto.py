"""The facade: a backup that takes over and hands back by itself, with clocks moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from failover.auto import AutoFailover, SyncManager
from failover.errors import FailoverError, Refused
from failover.memory import MemoryHeartbeatStore, MemoryLeaseStore
from tests.support.clock import FakeClock

Make = Callable[..., AutoFailover]


class Scene:
    """One clock and one pair of stores, what was said, and what the handler was given."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.set_by_s = 0.0
        self.stores = MemoryLeaseStore(self.now), MemoryHeartbeatStore(self.now)
        self.said: list[str] = []
        self.handled: list[Any] = []
        self.folder = folder
        self.down = False

    def now(self) -> float:
        """The database's clock, which somebody may have set."""
        return 1_764_000_000.0 + self.clock() + self.set_by_s

    def handle(self, event: Mapping[str, Any]) -> None:
        if self.down:
            raise ConnectionError("down")
        self.handled.append(event["text"])

    def process(self, node: str, rank: int, **given: Any) -> AutoFailover:
        return AutoFailover(
            self.handle,
            node=node,
            rank=rank,
            queue_path=self.folder / f"{node}.db",
            say=self.said.append,
            monotonic=self.clock,
            stores=self.stores,
            **given,
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def event(number: int) -> dict[str, Any]:
    return {"kind": "pvp" if number % 2 else "construction", "text": f"event {number}", "event_id": f"e{number}"}


def test_while_the_primary_beats_the_backup_does_nothing_and_says_nothing(scene: Scene) -> None:
    monitor, bot = scene.process("monitor", 1), scene.process("bot", 2)
    for _ in range(10):
        assert monitor.send_primary_heartbeat()
        assert not bot.should_activate_backup()
        assert not bot.queue_event_if_backup(event(1))
        scene.clock.move(60)
    assert (scene.said, bot.is_backup_mode) == ([], False)


def test_the_walkthrough(scene: Scene) -> None:
    monitor, bot = scene.process("monitor", 1), scene.process("bot", 2)
    assert monitor.send_primary_heartbeat()
    scene.clock.move(121)
    assert bot.should_activate_backup()
    for number in range(15):
        assert bot.send_backup_heartbeat()
        assert bot.queue_event_if_backup(event(number))
    assert bot.sync_manager.get_sync_stats() == {"total": 15, "pending": 15, "synced": 0}
    scene.clock.move(300)
    assert bot.should_activate_backup()
    back = scene.process("monitor", 1)
    assert not back.send_primary_heartbeat(), "the backup is still in charge"
    assert not bot.should_activate_backup()
    assert not bot.is_backup_mode
    assert scene.handled == [f"event {number}" for number in range(15)]
    assert bot.sync_manager.get_sync_stats() == {"total": 15, "pending": 0, "synced": 15}
    assert back.send_primary_heartbeat()
    assert not monitor.send_primary_heartbeat(), "the frozen one wakes up and is not in charge"
    tagged = [line for line in scene.said if line.startswith("[AUTO-FAILOVER]")]
    assert tagged == [
        "[AUTO-FAILOVER] THE PRIMARY IS OFFLINE!",
        "[AUTO-FAILOVER] BACKUP MODE IS ON, nobody has to do anything.",
        "[AUTO-FAILOVER] THE PRIMARY IS BACK!",
        "[AUTO-FAILOVER] REPLAYING EVENTS...",
        "[AUTO-FAILOVER] 15 events replayed!",
        "[AUTO-FAILOVER] THE PRIMARY IS IN CHARGE AGAIN.",
    ]
    assert "[SYNC] Event 15 (construction): event 14" in scene.said
    bot.sync_manager.close()


def test_where_no_primary_ever_was_the_backup_does_the_work(scene: Scene) -> None:
    bot = scene.process("bot", 2)
    assert bot.should_activate_backup()


def test_of_two_backups_one_takes_over(scene: Scene) -> None:
    one, two = scene.process("bot", 2), scene.process("bot-2", 3)
    assert one.should_activate_backup()
    assert not two.should_activate_backup()
    scene.clock.move(300)
    assert one.should_activate_backup()
    assert not two.should_activate_backup()
    scene.clock.move(800)
    assert not one.is_backup_mode, "its own pause was too long"
    assert two.should_activate_backup()
    assert not one.should_activate_backup()


def test_a_primary_started_again_waits_for_nothing(scene: Scene) -> None:
    assert scene.process("monitor", 1).send_primary_heartbeat()
    again = scene.process("monitor", 1)
    assert again.send_primary_heartbeat()


def test_backup_mode_stays_on_while_events_wait(scene: Scene) -> None:
    bot, monitor = scene.process("bot", 2), scene.process("monitor", 1)
    bot.should_activate_backup()
    bot.queue_event_if_backup(event(1))
    monitor.send_primary_heartbeat()
    scene.down = True
    with pytest.raises(ConnectionError):
        bot.should_activate_backup()
    assert bot.is_backup_mode
    scene.down = False
    assert not bot.should_activate_backup()
    assert scene.handled == ["event 1"]
    bot.sync_manager.close()


def test_a_returning_primary_may_be_made_to_wait(scene: Scene) -> None:
    bot, monitor = scene.process("bot", 2, failback_delay=100), scene.process("monitor", 1)
    bot.should_activate_backup()
    for _ in range(3):
        monitor.send_primary_heartbeat()
        assert bot.should_activate_backup()
        scene.clock.move(40)
    monitor.send_primary_heartbeat()
    assert not bot.should_activate_backup()
    bot.sync_manager.close()


JUMPS = [600.0, -600.0, 1e8, -1e8]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_is_set_in_backup_mode_brings_no_primary_back(scene: Scene, jump: float) -> None:
    monitor, bot = scene.process("monitor", 1), scene.process("bot", 2)
    assert monitor.send_primary_heartbeat()
    assert not bot.should_activate_backup()
    scene.clock.move(121)
    assert bot.should_activate_backup()
    scene.set_by_s = jump
    for number in range(20):
        scene.clock.move(24)
        assert bot.should_activate_backup()
        assert bot.queue_event_if_backup(event(number))
    assert bot.sync_manager.get_sync_stats() == {"total": 20, "pending": 20, "synced": 0}
    assert "[AUTO-FAILOVER] THE PRIMARY IS BACK!" not in scene.said
    back = scene.process("monitor", 1)
    for _ in range(3):
        back.send_primary_heartbeat()
        bot.should_activate_backup()
        scene.clock.move(24)
    assert back.send_primary_heartbeat()
    assert not bot.is_backup_mode
    assert scene.handled == [f"event {number}" for number in range(20)]
    bot.sync_manager.close()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_is_set_as_the_primary_dies_delays_no_takeover(scene: Scene, jump: float) -> None:
    monitor, bot = scene.process("monitor", 1), scene.process("bot", 2)
    for _ in range(5):
        assert monitor.send_primary_heartbeat()
        assert not bot.should_activate_backup()
        scene.clock.move(24)
    scene.set_by_s = jump
    for _ in range(4):
        assert not bot.should_activate_backup()
        scene.clock.move(24)
    scene.clock.move(24)
    assert bot.should_activate_backup()


@pytest.mark.parametrize("jump", JUMPS)
def test_while_the_primary_beats_no_clock_puts_the_backup_in_charge(scene: Scene, jump: float) -> None:
    monitor, bot = scene.process("monitor", 1), scene.process("bot", 2)
    for round in range(30):
        if round == 9:
            scene.set_by_s = jump
        if round == 19:
            scene.set_by_s = 0.0
        assert monitor.send_primary_heartbeat()
        assert not bot.should_activate_backup()
        scene.clock.move(12)
    assert scene.said == []


def test_a_backup_that_begins_after_the_clock_was_set_back_leaves_a_living_primary_alone(scene: Scene) -> None:
    monitor = scene.process("monitor", 1)
    assert monitor.send_primary_heartbeat()
    scene.set_by_s = -600
    bot = scene.process("bot", 2)
    for _ in range(10):
        assert not bot.should_activate_backup()
        scene.clock.move(60)
        assert monitor.send_primary_heartbeat()
    assert scene.said == []


@pytest.fixture
def sync(tmp_path: Path, scene: Scene) -> Iterator[SyncManager]:
    made = SyncManager(scene.handle, tmp_path / "sync_queue.db", say=scene.said.append)
    yield made
    made.close()


def test_a_sync_manager_replays_what_was_queued_and_counts(sync: SyncManager, scene: Scene) -> None:
    assert sync.process_backup_events() == 0
    assert sync.queue_event(event(1)) == "e1"
    sync.queue_event({"kind": "pvp", "text": "no id"})
    assert sync.process_backup_events() == 2
    assert scene.handled == ["event 1", "no id"]
    assert sync.get_sync_stats() == {"total": 2, "pending": 0, "synced": 2}


def test_an_event_that_is_refused_is_set_aside_in_the_end(tmp_path: Path) -> None:
    def refuse(given: Mapping[str, Any]) -> None:
        if given["event_id"] == "e1":
            raise Refused("no such player")

    sync = SyncManager(refuse, tmp_path / "sync_queue.db", say=lambda _: None)
    for number in range(3):
        sync.queue_event(event(number))
    assert sync.process_backup_events() == 2
    for _ in range(4):
        assert sync.process_backup_events() == 0
    assert sync.get_sync_stats() == {"total": 3, "pending": 0, "synced": 2}
    sync.close()


def test_a_handler_that_refuses_everything_costs_no_event(tmp_path: Path) -> None:
    handled: list[str] = []
    is_logged_in = False

    def handle(given: Mapping[str, Any]) -> None:
        if not is_logged_in:
            raise Refused("not logged in")
        handled.append(given["event_id"])

    sync = SyncManager(handle, tmp_path / "sync_queue.db", say=lambda _: None)
    for number in range(3):
        sync.queue_event(event(number))
    for _ in range(10):
        assert sync.process_backup_events() == 0
    assert sync.get_sync_stats() == {"total": 3, "pending": 3, "synced": 0}
    is_logged_in = True
    assert sync.process_backup_events() == 3
    assert handled == ["e0", "e1", "e2"]
    sync.close()


def test_a_handler_that_breaks_is_asked_again_from_that_event_on(tmp_path: Path) -> None:
    handled: list[str] = []
    breaks_at = ["e1"]

    def handle(given: Mapping[str, Any]) -> None:
        if given["event_id"] in breaks_at:
            raise ConnectionError("the site is down")
        handled.append(given["event_id"])

    sync = SyncManager(handle, tmp_path / "sync_queue.db", say=lambda _: None)
    for number in range(3):
        sync.queue_event(event(number))
    for _ in range(10):
        with pytest.raises(ConnectionError):
            sync.process_backup_events()
    assert handled == ["e0"]
    breaks_at.clear()
    assert sync.process_backup_events() == 2
    assert handled == ["e0", "e1", "e2"], "in their order"
    sync.close()


def test_without_a_handler_nothing_is_pretended(tmp_path: Path) -> None:
    sync = SyncManager(path=tmp_path / "sync_queue.db", say=lambda _: None)
    sync.queue_event(event(1))
    with pytest.raises(FailoverError):
        sync.process_backup_events()
    assert sync.get_sync_stats() == {"total": 1, "pending": 1, "synced": 0}
    sync.close()
