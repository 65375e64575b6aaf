"""What a supervisor publishes and what workers make of it: fresh, whole, or nothing at all."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from api.node.identity import Node
from api.node.published import FILE_NAME, NodeState, Published, SnapshotState
from tests.support.clock import FakeClock


@pytest.fixture
def published(tmp_path: Path, clock: FakeClock) -> Published:
    return Published(tmp_path, clock)


def leading(at: float = 1000.0, **fields: object) -> NodeState:
    said = {"instance": "i", "role": "primary", "state": "LEADING", "epoch": 7, "ledger_reachable": True}
    return NodeState(**{"at": at, "lease_rank": 1, **said, **fields})  # type: ignore[arg-type]


def test_what_was_said_is_read_whole(published: Published) -> None:
    state = leading(snapshot=SnapshotState(5, 1.5, 2), jobs={"beat": 0.1, "replay": None})
    published.write(state)
    assert published.read() == state


def test_nothing_said_is_nothing_read(published: Published) -> None:
    assert published.read() is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"at": "soon"}', b"\xff\x00", b"{}"])
def test_a_damaged_file_says_nothing_and_the_next_word_is_heard(
    published: Published, tmp_path: Path, clock: FakeClock, damage: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(damage)
    assert published.read() is None
    published.write(leading())
    clock.time += 0.1
    assert published.read() == leading()


def test_a_file_in_place_of_the_folder_is_an_error_to_the_writer_only(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").touch()
    published = Published(tmp_path / "file", clock)
    assert published.read() is None
    with pytest.raises(OSError):
        published.write(leading())


def test_a_change_is_read_a_tenth_of_a_second_later_at_most(published: Published, clock: FakeClock) -> None:
    published.write(leading())
    assert published.read() == leading()
    published.write(leading(epoch=8))
    clock.time += 0.09
    assert published.read() == leading()
    clock.time += 0.02
    assert published.read() == leading(epoch=8)


def test_a_supervisor_that_is_silent_for_six_seconds_is_no_longer_believed(
    published: Published, clock: FakeClock
) -> None:
    published.write(leading())
    clock.time += 5.9
    assert published.read() == leading()
    clock.time += 0.2
    assert published.read() is None


def test_what_was_said_before_the_machine_started_again_is_not_believed(published: Published, clock: FakeClock) -> None:
    published.write(leading(at=90_000.0))
    assert published.read() is None


def test_readers_see_the_old_state_or_the_new_one_and_never_half_of_one(tmp_path: Path) -> None:
    clock = FakeClock()
    writer, ended, torn = Published(tmp_path, clock), threading.Event(), list[object]()
    writer.write(leading(jobs={"0": 0.0}))

    def read() -> None:
        while not ended.is_set():
            # A reader of its own each time looks at the file each time.
            state = Published(tmp_path, clock).read()
            if state is None or len(state.jobs) != state.epoch % 100 + 1:
                torn.append(state)

    writer.write(leading(epoch=0, jobs={"0": 0.0}))
    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for epoch in range(500):
        writer.write(leading(epoch=epoch, jobs={str(number): 0.0 for number in range(epoch % 100 + 1)}))
    ended.set()
    for reader in readers:
        reader.join()
    assert torn == []


@pytest.mark.parametrize(("lease_rank", "mode"), [(1, "normal"), (2, "backup"), (None, "backup")])
def test_events_are_normal_while_rank_1_has_the_lease(lease_rank: int | None, mode: str) -> None:
    assert leading(lease_rank=lease_rank).mode == mode


def test_a_node_is_what_its_supervisor_says(published: Published, clock: FakeClock) -> None:
    node = Node("n", 2, published=published.read)
    assert (node.role, node.state, node.epoch, node.mode) == ("standby", "STARTING", 0, "backup")
    published.write(replace(leading(), role="backup", lease_rank=2))
    clock.time += 0.1
    assert (node.role, node.state, node.epoch, node.mode) == ("backup", "LEADING", 7, "backup")


@pytest.mark.parametrize(
    ("node", "is_own"),
    [
        (Node("n", instance="i", is_named=True), True),
        (Node("n", instance="another", is_named=True), False),
        (Node("n"), True),
        (Node("another"), False),
    ],
)
def test_only_its_own_supervisor_gives_a_node_its_role(
    published: Published, clock: FakeClock, node: Node, is_own: bool
) -> None:
    """Two servers may have been given one folder: of the cluster, either's supervisor may speak."""
    published.write(leading(node="n"))
    node = dataclasses.replace(node, published=published.read)
    assert (node.role, node.state) == (("primary", "LEADING") if is_own else ("standby", "STARTING"))
    assert (node.epoch, node.mode) == (7, "normal")


def test_two_copies_of_one_node_are_two_instances() -> None:
    assert Node("n").instance != Node("n").instance
