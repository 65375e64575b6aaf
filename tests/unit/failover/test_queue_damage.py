"""A damaged queue: set aside, its sound rows saved, said loudly, and no acknowledged promise forgotten."""

from __future__ import annotations

import contextlib
import random
import sqlite3
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
    damage(path, 24 * PAGE, PAGE)
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
    damage(path, 24 * PAGE, PAGE)
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


def root(path: Path, name: str) -> int:
    """Where in the file the tree of a table or an index begins."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return (int(found[0]) - 1) * PAGE


def leaves(content: bytes, at: int) -> list[int]:
    """Where the pages with the rows are, in the order of the table whose tree begins there (SQLite's file format)."""
    page = content[at : at + PAGE]
    cells = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n]) for n in range(int.from_bytes(page[3:5]))]
    return [(int.from_bytes(page[cell : cell + 4]) - 1) * PAGE for cell in cells]


def test_a_tree_that_leads_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "sync_queue.db"
    filled(path)
    content = bytearray(path.read_bytes())
    pages = leaves(content, root(path, "events"))
    early, late = pages[3], pages[-3]
    content[late : late + PAGE] = content[early : early + PAGE]
    path.write_bytes(content)
    with contextlib.closing(EventQueue(path)) as queue:
        saved = [queued.event for queued in queue.pending(1000)]
    assert len(saved) > 300
    assert saved == sorted({*saved}, key=lambda kept: int(kept.event_id[1:]))


def test_an_index_that_leaves_out_what_is_pending_is_a_damage(tmp_path: Path) -> None:
    path = tmp_path / "sync_queue.db"
    filled(path, 10)
    content, at = bytearray(path.read_bytes()), root(path, "events_open")
    last = content.index(bytes([10, 10]), at, at + PAGE)  # its place, and whose it is
    content[last : last + 2] = bytes([11, 11])
    path.write_bytes(content)
    with contextlib.closing(EventQueue(path)) as queue:
        assert [queued.event for queued in queue.pending(10)] == [event(number) for number in range(2, 10)]
        assert queue.stats().pending == 8
