"""A damaged queue: set aside, its sound rows saved, said loudly, and no acknowledged promise forgotten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from failover.errors import QueueUnavailable
from failover.queue import Event, EventQueue

PAGE = 4096


def event(number: int) -> Event:
    return Event(f"e{number}", "check", f'{{"text": "{"x" * 300}{number}"}}', 1.0)


def filled(path: Path, count: int = 400) -> None:
    queue = EventQueue(path)
    queue.append([event(number) for number in range(count)], ledger="this one")
    queue.acknowledge([1, 2])
    queue.close()


def damage(path: Path, offset: int, length: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = random.Random(7).randbytes(length)
    path.write_bytes(content)


def test_rows_around_a_hole_are_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sync_queue.db"
    filled(path)
    before = EventQueue(path)
    origin = before.origin
    before.close()
    damage(path, 20 * PAGE, PAGE)
    queue = EventQueue(path)
    saved = [queued.event for queued in queue.pending(1000)]
    assert 300 < len(saved) < 398
    assert saved == sorted(saved, key=lambda kept: int(kept.event_id[1:]))
    assert set(saved) <= {event(number) for number in range(2, 400)}
    assert queue.stats().synced == 2, "what was acknowledged is not sent again"
    assert queue.origin != origin
    assert "damaged" in caplog.text
    assert len(list(tmp_path.glob("sync_queue.db.damaged-*"))) == 1
    with pytest.raises(QueueUnavailable):
        queue.append([event(1000)], ledger="another")
    queue.append([event(1000)], ledger="this one")
    queue.close()
    again = EventQueue(path)
    assert again.stats().pending == len(saved) + 1
    again.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 500, random.Random(3).randbytes(20_000)])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sync_queue.db"
    path.write_bytes(content)
    queue = EventQueue(path)
    assert queue.stats().total == 0
    [aside] = tmp_path.glob("sync_queue.db.damaged-*")
    assert aside.read_bytes() == content
    queue.close()


def test_a_truncated_file_gives_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "sync_queue.db"
    filled(path)
    path.write_bytes(path.read_bytes()[: 30 * PAGE])
    queue = EventQueue(path)
    assert 0 < queue.stats().pending < 398
    assert queue.stats().synced == 2
    queue.close()


def test_another_process_goes_on_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "sync_queue.db"
    filled(path)
    other = EventQueue(path)
    other.append([event(900)])
    damage(path, 20 * PAGE, PAGE)
    rescuer = EventQueue(path)
    rescuer.append([event(901)])
    other.append([event(902)])
    other.close()
    rescuer.append([event(903)])
    rescuer.close()
    last = EventQueue(path)
    ids = [queued.event.event_id for queued in last.pending(1000)]
    last.close()
    assert ids[-3:] == ["e901", "e902", "e903"]


def test_a_rescue_that_was_interrupted_is_finished_or_begun_again(tmp_path: Path) -> None:
    path, repaired = tmp_path / "sync_queue.db", tmp_path / "sync_queue.db.repaired"
    filled(repaired, 10)
    (tmp_path / "sync_queue.db.repaired.lock").unlink(missing_ok=True)
    queue = EventQueue(path)
    assert queue.stats().total == 10, "it ended between the two renames"
    queue.close()
    assert not repaired.exists()
    repaired.write_bytes(b"half")
    path.write_bytes(b"broken" * 5000)
    queue = EventQueue(path)
    assert queue.stats().total == 0
    queue.close()
