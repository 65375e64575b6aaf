"""What the workers of one node share: failures in their windows, and that license keys have changed."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from api.node import mapped_file
from api.node.mapped_file import allocate
from api.node.shared_state import SharedState
from tests.support.clock import FakeClock


def count_failures(path: Path, times: int) -> None:
    state = SharedState(path)
    for _ in range(times):
        state.failures.failed("the same", 3600)
        state.changes.keys_changed()


def test_failures_are_counted_by_key_from_the_first_on(clock: FakeClock) -> None:
    state = SharedState(None, clock)
    assert state.failures.count("a", 60) == (0, 0.0)
    state.failures.failed("a", 60)
    clock.time += 20
    state.failures.failed("a", 60)
    state.failures.failed("b", 60)
    assert state.failures.count("a", 60) == (2, 40.0)
    assert state.failures.count("b", 60) == (1, 60.0)
    assert state.failures.count("c", 60) == (0, 0.0)


def test_a_window_ends_and_the_next_failure_begins_another(clock: FakeClock) -> None:
    state = SharedState(None, clock)
    state.failures.failed("a", 60)
    clock.time += 60
    assert state.failures.count("a", 60) == (0, 0.0)
    state.failures.failed("a", 60)
    assert state.failures.count("a", 60) == (1, 60.0)


def test_a_window_counts_whatever_the_moment_it_began_is_rounded_to(clock: FakeClock) -> None:
    clock.time = 970.593224925948
    assert clock.time + 60 - clock.time > 60
    state = SharedState(None, clock)
    state.failures.failed("a", 60)
    state.failures.failed("a", 60)
    assert state.failures.count("a", 60)[0] == 2


@pytest.mark.parametrize("there", [0, 100, 5_000])
def test_room_is_made_without_the_systems_own_call_for_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    path = tmp_path / "file"
    path.write_bytes(b"x" * there)
    with path.open("r+b") as file:
        allocate(file.fileno(), 4096)
    assert path.read_bytes() == (b"x" * there).ljust(4096, b"\0")


def test_two_workers_see_each_others_counts(tmp_path: Path, clock: FakeClock) -> None:
    one, two = SharedState(tmp_path / "state", clock), SharedState(tmp_path / "state", clock)
    one.failures.failed("a", 60)
    two.failures.failed("a", 60)
    assert one.failures.count("a", 60) == two.failures.count("a", 60) == (2, 60.0)
    before = two.changes.key_changes
    one.changes.keys_changed()
    assert two.changes.key_changes != before


def test_one_that_was_alone_joins_the_others_and_believes_no_copy_of_before(tmp_path: Path, clock: FakeClock) -> None:
    alone, other = SharedState(None, clock), SharedState(tmp_path / "state", clock)
    alone.changes.license_changed("a")
    clock.time += 1
    assert not alone.is_shared
    with pytest.raises(OSError, match="No such file"):
        alone.move_to(tmp_path / "none" / "state")
    assert not alone.is_shared
    alone.move_to(tmp_path / "state")
    assert alone.is_shared
    assert alone.changes.changed_at("a") == alone.changes.changed_at("b") == clock.time
    other.breaker.isolate()
    assert alone.breaker.isolated_since == clock.time
    alone.failures.failed("b", 60)
    assert other.failures.count("b", 60) == (1, 60.0)


def test_processes_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=count_failures, args=(tmp_path / "state", 2_000)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    state = SharedState(tmp_path / "state")
    assert state.failures.count("the same", 3600)[0] == 6_000
    assert state.changes.key_changes == 6_000


@pytest.mark.parametrize("left", [b"", b"short", b"\xff" * 64, b"\xff" * 1_000_000])
def test_a_damaged_file_is_made_anew(tmp_path: Path, clock: FakeClock, left: bytes) -> None:
    (tmp_path / "state").write_bytes(left)
    state = SharedState(tmp_path / "state", clock)
    state.changes.keys_changed()
    for key in ("a", "b"):
        assert state.failures.count(key, 60) == (0, 0.0)
        state.failures.failed(key, 60)
        assert state.failures.count(key, 60) == (1, 60.0)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    SharedState(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def test_counts_from_before_a_reboot_are_void(tmp_path: Path, clock: FakeClock) -> None:
    SharedState(tmp_path / "state", clock).failures.failed("a", 60)
    clock.time = 5.0  # the monotonic clock begins again
    assert SharedState(tmp_path / "state", clock).failures.count("a", 60) == (0, 0.0)


def test_a_change_from_before_a_reboot_is_no_change_to_come(tmp_path: Path, clock: FakeClock) -> None:
    before = SharedState(tmp_path / "state", clock)
    before.changes.license_changed("a")
    before.changes.everything_changed()
    clock.time = 5.0
    state = SharedState(tmp_path / "state", clock)
    assert state.changes.changed_at("a") == 0.0
    state.changes.license_changed("a")
    assert state.changes.changed_at("a") == 5.0


def test_a_license_was_queued_while_busy_until_the_ledger_itself_is_away(tmp_path: Path, clock: FakeClock) -> None:
    state, sibling = SharedState(tmp_path / "state", clock), SharedState(tmp_path / "state", clock)
    assert not state.breaker.is_queued_while_busy("a")
    state.breaker.license_busy("a")
    assert [sibling.breaker.is_queued_while_busy(key) for key in ("a", "b")] == [True, False]
    assert state.changes.changed_at("a") == 0.0
    clock.time += 1
    state.breaker.isolate()
    state.breaker.reconnected()
    assert not sibling.breaker.is_queued_while_busy("a")
    clock.time += 1
    state.breaker.license_busy("a")
    assert sibling.breaker.is_queued_while_busy("a")


def test_more_keys_than_places_push_out_those_with_the_fewest_failures(clock: FakeClock) -> None:
    state = SharedState(None, clock)
    for _ in range(30):
        state.failures.failed("the worst", 60)
    for number in range(30_000):
        state.failures.failed(f"once {number}", 60)
    assert state.failures.count("the worst", 60)[0] == 30


def test_nothing_in_the_file_stands_where_something_else_does() -> None:
    table, license = mapped_file.SLOTS * mapped_file.SLOT_SIZE, mapped_file.MOMENTS * mapped_file.MOMENT_SIZE
    sizes = {"SLOTS_AT": table, "LICENSES_CHANGED_AT": license, "LICENSES_BUSY_AT": license}
    starts = {name: at for name, at in vars(mapped_file).items() if name.endswith("_AT")}
    ends = sorted((at, at + sizes.get(name, 8)) for name, at in starts.items())
    assert [end for _, end in ends] == [start for start, _ in ends[1:]] + [mapped_file.SIZE]
