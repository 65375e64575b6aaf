"""The queue: what was taken is on the disk, once, in order; its limits are said, and nothing is dropped."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.errors import QueueFull, QueueUnavailable, ShareFull
from failover.queue import Event, EventQueue, QueueLimits
from tests.support.clock import FakeClock


def event(number: int, key: str = "", body: str = '{"a": 1}') -> Event:
    return Event(f"e{number}", "check", body, 100.0 + number, key)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Iterator[EventQueue]:
    made = EventQueue(tmp_path / "sync_queue.db", QueueLimits(events=20, bytes=1000, share=0.25, keep_s=60), clock)
    yield made
    made.close()


def test_events_come_out_in_the_order_they_went_in(queue: EventQueue) -> None:
    assert queue.append([event(3), event(1)]) == [1, 2]
    assert queue.append([event(2)]) == [3]
    assert [queued.event for queued in queue.pending(10)] == [event(3), event(1), event(2)]
    assert [queued.position for queued in queue.pending(1, after=1)] == [2]


def test_what_is_acknowledged_is_pending_no_more_and_counts_once(queue: EventQueue, clock: FakeClock) -> None:
    queue.append([event(n) for n in range(3)])
    clock.move(5)
    assert (queue.stats().oldest_s, queue.stats().bytes) == (5.0, 24)
    for _ in range(2):
        queue.acknowledge([1, 2])
    stats = queue.stats()
    assert (stats.total, stats.pending, stats.synced, stats.dead, stats.bytes) == (3, 1, 2, 0, 8)
    assert [queued.position for queued in queue.pending(10)] == [3]


def test_the_same_event_again_is_the_same_row_and_another_content_is_kept(queue: EventQueue) -> None:
    assert queue.append([event(1)]) == queue.append([event(1)])
    assert queue.append([event(1, body='{"a": 2}')]) > [1]
    assert queue.stats().pending == 2


def test_more_than_one_statement_takes_are_all_there_and_counted(tmp_path: Path, clock: FakeClock) -> None:
    with contextlib.closing(EventQueue(tmp_path / "many.db", now=clock)) as queue:
        first, more = [event(n) for n in range(150)], [event(n) for n in range(120, 401)]
        assert queue.append(first) == list(range(1, 151))
        places = queue.append(more)
        assert places[:30] == list(range(121, 151))
        assert [queued.position for queued in queue.pending(1000)] == [*range(1, 151), *places[30:]]
        assert [queued.event for queued in queue.pending(1000)] == first + more[30:]
        assert queue.stats().bytes == sum(len(one.body.encode()) for one in first + more[30:])
        before = queue.stats()
        assert (queue.append(first), queue.append([])) == (list(range(1, 151)), [])
        assert queue.stats() == before


def test_at_its_limit_it_says_so_and_takes_nothing_of_the_batch(queue: EventQueue) -> None:
    queue.append([event(n) for n in range(19)])
    with pytest.raises(QueueFull):
        queue.append([event(20), event(21)])
    assert queue.stats().pending == 19
    queue.append([event(20)])
    queue.acknowledge([1])
    queue.append([event(21)])


def test_bytes_are_limited_too(queue: EventQueue) -> None:
    with pytest.raises(QueueFull):
        queue.append([event(1, body="ü" * 501)])
    queue.append([event(1, body="ü" * 500)])


def test_one_key_gets_its_share_and_others_go_on(queue: EventQueue) -> None:
    queue.append([event(n, "lic") for n in range(5)])
    with pytest.raises(ShareFull):
        queue.append([event(6, "lic")])
    queue.append([event(7, "other"), event(8)])
    queue.acknowledge([1])
    queue.append([event(6, "lic")])


def test_one_key_gets_its_share_of_the_bytes_too(queue: EventQueue) -> None:
    """Large events are few: five of them would fill the queue without passing a share of the rows."""
    queue.append([event(1, "lic", "x" * 200)])
    with pytest.raises(ShareFull, match="250 bytes"):
        queue.append([event(2, "lic", "x" * 51)])
    queue.append([event(2, "lic", "x" * 50), event(3, "other", "x" * 250), event(4, body="x" * 400)])
    queue.set_aside(1, "no such thing")
    with pytest.raises(ShareFull):
        queue.append([event(5, "lic", "x")])
    queue.revive([1])
    queue.acknowledge([1])
    queue.append([event(5, "lic", "ü" * 100)])
    with pytest.raises(ShareFull):
        queue.append([event(6, "lic", "x")])


def test_a_file_of_a_release_that_counted_no_bytes_goes_on_with_them_counted(queue: EventQueue) -> None:
    queue.append([event(1, "lic", "x" * 200), event(2, "lic", "x" * 40), event(3, "done", "x" * 100)])
    queue.set_aside(2, "no such thing")
    queue.acknowledge([3])
    queue.close()
    with contextlib.closing(sqlite3.connect(queue.path)) as connection:
        connection.executescript(
            "DROP TRIGGER bytes_taken; DROP TRIGGER bytes_left; DROP TRIGGER bytes_moved; DROP TABLE share_bytes; "
            "DROP INDEX events_dead; PRAGMA user_version = 1"
        )
    with contextlib.closing(EventQueue(queue.path, queue.limits)) as again:
        with pytest.raises(ShareFull):
            again.append([event(4, "lic", "x" * 11)])
        again.append([event(4, "lic", "x" * 10), event(5, "done", "x" * 250)])
    with contextlib.closing(sqlite3.connect(queue.path)) as connection:
        assert dict(connection.execute("SELECT * FROM share_bytes")) == {"lic": 250, "done": 250}


def test_a_release_that_counts_no_bytes_may_write_the_file(queue: EventQueue) -> None:
    queue.append([event(1, "lic")])
    with contextlib.closing(sqlite3.connect(queue.path)) as other:
        other.execute("DELETE FROM shares")
        other.execute("INSERT INTO shares SELECT key, count(*), 0 FROM events GROUP BY key")  # its own way of counting
        other.execute(
            "INSERT INTO events (event_id, kind, key, occurred_at, body, checksum, queued_at) "
            "VALUES ('o', 'check', 'lic', 1.0, printf('%.242c', 'x'), 'sum', 1.0)"
        )
        other.execute("UPDATE about SET pending = 2, bytes = 250")
        other.commit()
    with pytest.raises(ShareFull):
        queue.append([event(2, "lic", "x")])


def test_a_share_is_what_waits_of_a_key_and_what_was_set_aside(queue: EventQueue) -> None:
    keys = ("lic", "nul\0a", "nul\0b")
    for number, key in enumerate(keys):
        queue.append([event(10 * number + n, key) for n in range(5)])
    for key in keys:
        assert queue.holds(key)
        with pytest.raises(ShareFull):
            queue.append([event(90, key)])
    assert queue.append([event(n, "lic") for n in range(5)]) == [1, 2, 3, 4, 5], "what is there already takes no room"
    queue.set_aside(1, "no such thing")
    queue.set_aside(1, "no such thing")
    with pytest.raises(ShareFull):
        queue.append([event(90, "lic")])
    queue.acknowledge([1, 2, 3])
    queue.acknowledge([2, 3, 4, 5])
    assert not queue.holds("lic"), "what was set aside does not wait"
    queue.append([event(n, "lic") for n in range(90, 94)])
    with pytest.raises(ShareFull):
        queue.append([event(94, "lic")])
    assert not queue.holds("other")


@pytest.mark.parametrize(
    "damage",
    [
        # As it was before there were shares.
        """DROP TRIGGER share_taken; DROP TRIGGER share_left; DROP TRIGGER share_moved; DROP TABLE shares;
        CREATE INDEX events_by_key ON events (key) WHERE state != 'synced'; PRAGMA user_version = 0""",
        "UPDATE shares SET pending = 0, dead = 7",
        "DELETE FROM shares",
    ],
)
def test_shares_are_counted_anew_at_the_start(queue: EventQueue, damage: str) -> None:
    queue.append([event(n, "lic") for n in range(5)])
    queue.set_aside(1, "no such thing")
    queue.acknowledge([2])
    queue.acknowledge(queue.append([event(n, "done") for n in range(10, 13)]))
    queue.trim()
    queue.close()
    with contextlib.closing(sqlite3.connect(queue.path)) as connection:
        assert connection.execute("SELECT key, pending, dead FROM shares").fetchall() == [("lic", 3, 1)]
        connection.executescript(damage)
    with contextlib.closing(EventQueue(queue.path, queue.limits)) as again:
        assert (again.holds("lic"), again.holds("done")) == (True, False)
        again.append([event(20, "lic")])
        with pytest.raises(ShareFull):
            again.append([event(21, "lic")])
    with contextlib.closing(sqlite3.connect(queue.path)) as connection:
        assert connection.execute("SELECT key, pending, dead FROM shares").fetchall() == [("lic", 4, 1)]
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events_by_key'").fetchall()


def test_another_release_that_knows_of_no_shares_may_write_the_file(queue: EventQueue) -> None:
    queue.append([event(1, "lic")])
    with contextlib.closing(sqlite3.connect(queue.path)) as other:
        new = "INSERT OR IGNORE INTO events (event_id, kind, key, occurred_at, body, checksum, queued_at) VALUES "
        other.execute(new + ", ".join(f"('o{n}', 'check', 'lic', 1.0, '', 'sum', 1.0)" for n in (1, 2, 2, 3)))
        other.execute("UPDATE events SET state = 'synced' WHERE position = 1")
        other.execute("UPDATE events SET state = 'dead' WHERE position = 2")
        other.execute("DELETE FROM events WHERE position IN (1, 3)")
        other.execute("UPDATE about SET pending = 1, dead = 1")
        other.commit()
        assert other.execute("SELECT * FROM shares").fetchall() == [("lic", 1, 1)]
    queue.append([event(n, "lic") for n in range(2, 5)])
    with pytest.raises(ShareFull):
        queue.append([event(5, "lic")])


def test_a_share_of_which_only_rows_are_left_that_were_set_aside_is_kept(queue: EventQueue) -> None:
    queue.append([event(n, "lic") for n in range(5)])
    for position in range(1, 6):
        queue.set_aside(position, "no such thing")
    queue.trim()
    with pytest.raises(ShareFull):
        queue.append([event(6, "lic")])


def test_a_row_of_which_the_key_was_damaged_leaves_the_share_that_it_was_in(queue: EventQueue) -> None:
    queue.append([event(1, "lic"), event(2, "other")])
    with contextlib.closing(sqlite3.connect(queue.path)) as other:
        other.execute("DROP TRIGGER share_moved")  # a disk knows of none
        other.execute("UPDATE events SET key = 'X' WHERE position = 1")
        other.commit()
    assert [queued.event for queued in queue.pending(10)] == [event(2, "other")]
    assert [queue.holds(key) for key in ("lic", "other", "X")] == [False, True, False]


def test_what_is_set_aside_stays_and_counts_towards_the_limit(queue: EventQueue) -> None:
    queue.append([event(n) for n in range(20)])
    assert queue.count_try(1, "no such thing") == 1
    assert queue.count_try(1, "no such thing") == 2
    queue.set_aside(1, "no such thing")
    assert [(queued.event, queued.tries) for queued in queue.dead()] == [(event(0), 2)]
    assert (queue.stats().dead, queue.stats().pending) == (1, 19)
    with pytest.raises(QueueFull):
        queue.append([event(50)])


def test_acknowledged_rows_are_kept_for_a_while_and_then_trimmed(queue: EventQueue, clock: FakeClock) -> None:
    queue.append([event(1), event(2)])
    queue.acknowledge([1])
    clock.move(59)
    assert queue.trim() == 0
    clock.move(2)
    assert queue.trim() == 1
    assert (queue.stats().total, queue.stats().synced, queue.stats().pending) == (2, 1, 1)


def test_no_more_acknowledged_rows_are_kept_than_the_queue_may_hold(queue: EventQueue) -> None:
    for start in (0, 20):
        queue.acknowledge(queue.append([event(n) for n in range(start, start + 20)]))
    assert queue.trim() == 20
    assert queue.stats().synced == 40


def test_it_is_the_same_queue_after_a_restart(queue: EventQueue, tmp_path: Path) -> None:
    queue.append([event(1), event(2)])
    queue.acknowledge([1])
    again = EventQueue(queue.path)
    assert again.origin == queue.origin
    assert (again.stats().pending, again.stats().synced, again.stats().bytes) == (1, 1, 8)
    again.close()


def test_a_fresh_disk_is_a_fresh_origin(queue: EventQueue, tmp_path: Path) -> None:
    before = queue.origin
    for path in tmp_path.glob("sync_queue.db*"):
        path.unlink()
    queue.append([event(1)])
    assert queue.origin != before
    assert queue.stats().pending == 1


def test_a_row_whose_checksum_does_not_hold_is_set_aside_loudly(
    queue: EventQueue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.append([event(n) for n in range(3)])
    with sqlite3.connect(queue.path) as other:
        other.execute("UPDATE events SET body = '{}' WHERE position = 2")
    other.close()
    assert [queued.position for queued in queue.pending(10)] == [1, 3]
    assert queue.stats().dead == 1
    assert "set aside" in caplog.text


def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(QueueUnavailable):
        EventQueue(tmp_path / "folder")
    with pytest.raises(QueueUnavailable):
        EventQueue(tmp_path / "file" / "sync_queue.db")


def test_a_full_disk_loses_nothing_that_was_taken(queue: EventQueue) -> None:
    queue.append([event(1)])
    connection = queue._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    queue.limits = QueueLimits()
    with pytest.raises(QueueUnavailable, match="full"):
        queue.append([event(n, body="x" * 4000) for n in range(2, 50)])
    assert [queued.event for queued in queue.pending(100)] == [event(1)]
    queue.append([event(2)])


def _append(path: Path, name: str) -> None:
    queue = EventQueue(path)
    for number in range(40):
        queue.append([Event(f"{name}-{number}", "check", "{}", 1.0)])
    queue.close()


def test_processes_and_threads_of_one_node_share_it(tmp_path: Path) -> None:
    path = tmp_path / "sync_queue.db"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(path, f"p{n}")) for n in range(2)]
    threads = [threading.Thread(target=_append, args=(path, f"t{n}")) for n in range(2)]
    for worker in [*workers, *threads]:
        worker.start()
    for worker in [*workers, *threads]:
        worker.join(60)
    queue = EventQueue(path)
    ids = [queued.event.event_id for queued in queue.pending(1000)]
    queue.close()
    assert len(set(ids)) == len(ids) == 160
    for name in ("p0", "p1", "t0", "t1"):
        assert [i for i in ids if i.startswith(name)] == [f"{name}-{number}" for number in range(40)]


# -- whose events they are --------------------------------------------------------------------------------------------


def test_events_of_another_ledger_are_kept_in_a_file_aside_and_never_mixed_with_these(
    tmp_path: Path, queue: EventQueue
) -> None:
    worker = EventQueue(queue.path)
    worker.append([event(1)], ledger="old")
    with pytest.raises(QueueUnavailable):
        worker.append([event(2)], ledger="new")
    assert queue.belong_to("old") is None
    assert queue.kept_aside() == []
    aside = queue.belong_to("new")
    assert queue.kept_aside() == [aside]
    assert queue.pending(10) == []
    worker.append([event(2)], ledger="new")
    assert [queued.event for queued in queue.pending(10)] == [event(2)]
    assert aside is not None
    old = EventQueue(aside)
    assert [queued.event for queued in old.pending(10)] == [event(1)]
    assert old.belong_to("old") is None
    old.close()
    worker.close()


def test_files_that_are_set_aside_in_one_second_have_names_of_their_own(queue: EventQueue) -> None:
    for number in range(5):
        queue.belong_to(f"ledger-{number}")
        queue.append([event(number)], ledger=f"ledger-{number}")
    kept = queue.kept_aside()
    assert len(kept) == 4
    for number, path in enumerate(kept):
        with contextlib.closing(EventQueue(path)) as aside:
            assert [queued.event for queued in aside.pending(10)] == [event(number)]


def test_a_queue_in_which_nothing_waits_is_any_ledger_s(queue: EventQueue) -> None:
    queue.acknowledge(queue.append([event(1)], ledger="old"))
    queue.append([event(1)], ledger="new")
    assert queue.belong_to("new") is None
    assert [queued.event for queued in queue.pending(10)] == [event(1)]
    assert queue.kept_aside() == []


def test_a_file_of_before_ledgers_had_names_goes_to_the_first_that_is_named(queue: EventQueue) -> None:
    queue.append([event(1)])
    queue.close()
    connection = sqlite3.connect(queue.path)
    connection.executescript("ALTER TABLE about DROP COLUMN ledger; PRAGMA user_version = 0")
    connection.close()
    assert queue.belong_to("first") is None
    assert [queued.event for queued in queue.pending(10)] == [event(1)]
    with pytest.raises(QueueUnavailable):
        queue.append([event(2)], ledger="second")
