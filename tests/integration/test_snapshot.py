"""The snapshot follows the log: it knows what the ledger knows, notices another ledger, and is never set back."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, event, insert, update

from api.admin.kinds import Kind
from api.admin.store import Resources
from api.checks.batcher import identity
from api.checks.recorder import Recorder
from api.checks.unit_of_work import Operation
from api.ids import new_id
from api.ledger import permitted_keys, tables
from api.ledger.database import Database
from api.ledger.records import Change, LicenseQuery, LicenseRecord
from api.ledger.store import Ledger
from api.licensing import Act, Call
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import SharedState
from api.signing import generate, key_claim
from api.snapshot import Follower, Reader, Snapshot, open_snapshot
from tests.support.nodes import Sold, license_row, opened_ledger, sell

FLOATING = {"floating": True, "max_machines": 3}


class Copied:
    """A ledger, an admin, a recorder, and a snapshot that follows."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.ledger = ledger
        self.clock = Clock()
        self.snapshot = Snapshot(folder / "snapshot.db")
        self.follower = Follower(ledger.database, self.snapshot, self.clock)
        node = Node("here")
        self.admin = Resources(ledger.database, node, self.clock, SharedState(None).changes)
        self.recorder = Recorder(ledger, node, self.clock)

    def do(self, act: Act, sold: Sold, fingerprint: str | None = None) -> None:
        call = Call(act=act, fingerprint=fingerprint)
        self.recorder.submit(Operation(call=call, key_hash=sold.key_hash, event_id=new_id(), nonce="n"), identity)

    def both(self, sold: Sold, fingerprint: str | None = None) -> tuple[LicenseRecord, LicenseRecord]:
        """What the snapshot says, and what the ledger says."""
        ask = LicenseQuery(sold.key_hash, fingerprint)
        return self.snapshot.look_up([ask])[0], self.ledger.look_up([ask])[0]


@pytest.fixture
def copied(ledger_url: str, tmp_path: Path) -> Iterator[Copied]:
    with opened_ledger(ledger_url) as ledger:
        copied = Copied(ledger, tmp_path)
        yield copied
        copied.snapshot.close()


def test_a_fresh_snapshot_knows_all_that_the_ledger_knows(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.do(Act.ACTIVATE, sold, "m1")
    assert copied.follower.poll() is True
    from_snapshot, from_ledger = copied.both(sold, "m1")
    assert from_snapshot == from_ledger
    assert from_snapshot.holding is not None
    assert from_snapshot.holding.active("m1") is not None


def test_a_license_whose_policy_has_not_come_yet_is_not_known_yet(copied: Copied) -> None:
    sold, other = sell(copied.ledger.database, FLOATING), sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    policy = license_row(copied.ledger.database, sold)["policy"]
    with copied.snapshot.writing() as writer:
        writer.remove(tables.policies, policy)
    asks = [LicenseQuery(sold.key_hash, "m1"), LicenseQuery(other.key_hash, "m1")]
    for known in (copied.snapshot.look_up(asks), copied.snapshot.look_up_fully(asks, copied.clock.now())):
        assert [answer.holding is not None for answer in known] == [False, True]


def test_every_kind_of_change_arrives_with_the_next_poll(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    for act, fingerprint in (
        (Act.ACTIVATE, "m1"),
        (Act.PING, "m1"),
        (Act.USAGE, None),
        (Act.CHECK_IN, None),
        (Act.DEACTIVATE, "m1"),
    ):
        copied.do(act, sold, fingerprint)
        assert copied.follower.poll() is False
        from_snapshot, from_ledger = copied.both(sold, "m1")
        assert from_snapshot == from_ledger, act


def test_signing_keys_that_are_founded_after_the_copy_was_begun_arrive(copied: Copied) -> None:
    """A supervisor may copy the ledger before the first worker founds the keys, which no event tells of."""
    copied.follower.poll()
    key = generate()
    permitted_keys.found(copied.ledger.database, [key], copied.clock.now())
    assert copied.follower.poll() is False
    assert permitted_keys.load_from_snapshot(copied.snapshot.rows).statuses == {key.kid: "current"}


def test_a_revocation_and_a_changed_policy_arrive(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    license = copied.admin.page(Kind.LICENSE, {})["items"][0]
    copied.admin.act(license["id"], "suspend")
    copied.admin.update(Kind.POLICY, license["policy"], {"max_machines": 7})
    copied.follower.poll()
    holding = copied.snapshot.look_up([LicenseQuery(sold.key_hash)])[0].holding
    assert holding is not None
    assert holding.license.status == "suspended"
    assert holding.license.max_machines == 7


def test_what_changes_between_the_statements_of_a_poll_is_left_to_the_next(copied: Copied) -> None:
    """Two connections: a license was suspended, and gets more seats while the follower is reading."""
    sold = sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    license = copied.admin.page(Kind.LICENSE, {})["items"][0]
    copied.admin.act(license["id"], "suspend")

    def in_between(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT policies.") and not widened:
            widened.append(statement)
            with contextlib.closing(Database(copied.ledger.database.url)) as other:
                admin = Resources(other, Node("there"), copied.clock, SharedState(None).changes)
                admin.update(Kind.LICENSE, license["id"], {"max_machines": 9})

    widened: list[str] = []
    event.listen(copied.ledger.database.engine, "before_cursor_execute", in_between)
    copied.follower.poll()
    assert widened
    holding = copied.snapshot.look_up([LicenseQuery(sold.key_hash)])[0].holding
    assert holding is not None
    assert (holding.license.status, holding.license.max_machines) == ("suspended", 3)
    copied.follower.poll()
    holding = copied.snapshot.look_up([LicenseQuery(sold.key_hash)])[0].holding
    assert holding is not None
    assert (holding.license.status, holding.license.max_machines) == ("suspended", 9)


def used(copied: Copied, sold: Sold) -> tuple[int, int]:
    """The uses as the snapshot has them, and as the ledger has them."""
    from_snapshot, from_ledger = copied.both(sold)
    assert from_snapshot.holding is not None
    assert from_ledger.holding is not None
    return from_snapshot.holding.license.uses, from_ledger.holding.license.uses


def put_use(copied: Copied, sold: Sold, *, queued: bool) -> None:
    """One use more, as a worker puts it over the rows that it knew."""
    [known] = copied.snapshot.look_up_fully([LicenseQuery(sold.key_hash)], copied.clock.now())
    before = known.holding
    assert before is not None
    after = msgspec.structs.replace(before.license, uses=before.license.uses + 1)
    change = Change(before, msgspec.structs.replace(before, license=after))
    with copied.snapshot.writing() as writer:
        writer.put_own(change, known.seq, queued=queued)


def test_what_was_in_the_ledger_all_along_and_queued_again_is_in_the_copy_once_in_the_end(copied: Copied) -> None:
    """A commit was in doubt, the copy got it from the ledger, and then the node queued it: replay changes nothing."""
    sold, queue = sell(copied.ledger.database), {"holds": True}
    follower = Follower(copied.ledger.database, copied.snapshot, copied.clock, lambda _license_id: queue["holds"])
    copied.do(Act.USAGE, sold)
    follower.poll()
    put_use(copied, sold, queued=True)
    follower.poll()
    assert used(copied, sold) == (2, 1), "its queue is not replayed yet"
    queue["holds"] = False
    follower.poll()
    assert used(copied, sold) == (1, 1)
    assert copied.snapshot.own() == []


def test_a_write_that_runs_ahead_of_the_follower_is_not_undone_by_what_is_read_before_it(copied: Copied) -> None:
    sold = sell(copied.ledger.database)
    follower = Follower(copied.ledger.database, copied.snapshot, copied.clock, lambda _license_id: False)
    follower.poll()
    put_use(copied, sold, queued=True)
    late: list[str] = []

    def in_between(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT machines.") and not late:
            late.append(statement)
            put_use(copied, sold, queued=False)

    event.listen(copied.ledger.database.engine, "before_cursor_execute", in_between)
    follower.poll()
    assert late
    assert used(copied, sold) == (2, 0), "the second is answered, and in the ledger behind what this poll read"
    follower.poll()
    assert used(copied, sold) == (0, 0)


def test_what_is_deleted_is_forgotten(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.do(Act.ACTIVATE, sold, "m1")
    copied.follower.poll()
    copied.admin.delete(Kind.LICENSE, copied.admin.page(Kind.LICENSE, {})["items"][0]["id"])
    copied.follower.poll()
    assert copied.snapshot.look_up([LicenseQuery(sold.key_hash)])[0].holding is None
    assert copied.snapshot.count(tables.machines) == 0


def test_a_bulk_is_one_event_and_arrives_whole(copied: Copied) -> None:
    sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    policy = copied.admin.page(Kind.POLICY, {})["items"][0]["id"]
    copied.admin.create_many({"policy": policy}, 250)
    copied.follower.poll()
    assert copied.snapshot.count(tables.licenses) == 251


def test_another_generation_is_copied_anew(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    with copied.ledger.database.writing() as connection:
        connection.execute(update(tables.ledger).values(generation=2))
        connection.execute(delete(tables.licenses))
    assert copied.follower.poll() is True
    assert copied.snapshot.look_up([LicenseQuery(sold.key_hash)])[0].holding is None


def test_places_of_the_log_that_are_used_again_are_noticed(copied: Copied) -> None:
    """A restore from a backup: the log is shorter, and then as long again, with other events."""
    sold = sell(copied.ledger.database, FLOATING)
    for fingerprint in ("m1", "m2"):
        copied.do(Act.ACTIVATE, sold, fingerprint)
    copied.follower.poll()
    with copied.ledger.database.writing() as connection:
        connection.execute(delete(tables.events).where(tables.events.c.seq == 2))
        connection.execute(delete(tables.machines).where(tables.machines.c.fingerprint == "m2"))
        connection.execute(update(tables.licenses).values(seats=1, seq=1))
        connection.execute(update(tables.log_head).values(seq=1))
    copied.do(Act.PING, sold, "m1")
    copied.do(Act.VALIDATE, sold, "m1")
    assert copied.follower.poll() is True
    from_snapshot, from_ledger = copied.both(sold, "m2")
    assert from_snapshot == from_ledger


def test_a_row_is_replaced_by_a_newer_one_only(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    with copied.ledger.database.reading() as connection:
        row = dict(connection.execute(tables.licenses.select()).mappings().one())
    with copied.snapshot.writing() as writer:
        writer.put(tables.licenses, [tuple((row | {"uses": 5, "seq": 9}).values())])
        writer.put(tables.licenses, [tuple((row | {"uses": 1, "seq": 8}).values())])
    holding = copied.snapshot.look_up([LicenseQuery(sold.key_hash)])[0].holding
    assert holding is not None
    assert holding.license.uses == 5


def test_a_copy_that_was_broken_off_is_begun_anew(copied: Copied) -> None:
    sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    position = copied.snapshot.position()
    assert position is not None
    with copied.snapshot.writing() as writer:
        writer.move_to(msgspec.structs.replace(position, complete=False))
    assert copied.follower.poll() is True


def test_a_log_without_changes_of_rows_only_moves_the_position(copied: Copied) -> None:
    sold = sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    before = copied.snapshot.position()
    copied.do(Act.VALIDATE, sold)
    copied.follower.poll()
    after = copied.snapshot.position()
    assert before is not None
    assert after is not None
    assert after.seq == before.seq + 1
    assert after.as_of >= before.as_of


def test_a_transaction_that_fails_leaves_the_snapshot_as_it_was(copied: Copied) -> None:
    sell(copied.ledger.database, FLOATING)
    copied.follower.poll()
    with pytest.raises(LookupError), copied.snapshot.writing() as writer:  # noqa: PT012
        writer.clear()
        raise LookupError
    assert copied.snapshot.count(tables.licenses) == 1


def test_a_ledger_without_licenses_makes_a_complete_snapshot(copied: Copied) -> None:
    with copied.ledger.database.writing() as connection:
        connection.execute(insert(tables.products), {"id": "p", "code": "p", "name": "p", "created_at": 0.0})
    copied.follower.poll()
    position = copied.snapshot.position()
    assert position is not None
    assert position.complete


def test_a_damaged_file_is_thrown_away_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    path.write_bytes(b"no database" * 1000)
    snapshot = open_snapshot(path)
    assert snapshot.position() is None
    snapshot.close()


def test_a_key_that_is_another_licenses_within_one_poll_arrives(copied: Copied) -> None:
    sell(copied.ledger.database, FLOATING)
    policy = copied.admin.page(Kind.POLICY, {})["items"][0]["id"]
    key = "KEY-THAT-MOVES-0001"
    first = copied.admin.create(Kind.LICENSE, {"policy": policy, "key": key})
    copied.follower.poll()
    copied.admin.delete(Kind.LICENSE, first["id"])
    second = copied.admin.create(Kind.LICENSE, {"policy": policy, "key": key})
    copied.follower.poll()
    holding = copied.snapshot.look_up([LicenseQuery(key_claim(key))])[0].holding
    assert holding is not None
    assert holding.license.id == second["id"]


def test_two_licenses_that_swap_keys_within_one_poll_arrive(copied: Copied) -> None:
    sell(copied.ledger.database, FLOATING)
    policy = copied.admin.page(Kind.POLICY, {})["items"][0]["id"]
    keys = ["KEY-OF-THE-FIRST-01", "KEY-OF-THE-SECOND-2"]
    one, two = (copied.admin.create(Kind.LICENSE, {"policy": policy, "key": key}) for key in keys)
    copied.follower.poll()
    copied.admin.act(one["id"], "reissue")
    copied.admin.act(two["id"], "reissue", {"key": keys[0]})
    copied.admin.act(one["id"], "reissue", {"key": keys[1]})
    copied.follower.poll()
    found = [copied.snapshot.look_up([LicenseQuery(key_claim(key))])[0].holding for key in keys]
    assert [holding.license.id for holding in found if holding is not None] == [two["id"], one["id"]]


def test_a_file_that_is_only_busy_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    writer = open_snapshot(path)
    inode = path.stat().st_ino
    with writer.writing():
        reader = Snapshot(path, reading=True)
        assert reader.position() is None
        reader.close()
    writer.close()
    assert path.stat().st_ino == inode


def test_a_file_of_another_format_is_made_anew_by_its_writer_and_refused_by_readers(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    open_snapshot(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError):
        Snapshot(path, reading=True)
    snapshot = open_snapshot(path)
    assert snapshot.count(tables.licenses) == 0
    snapshot.close()


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, None])
def test_a_reader_of_a_useless_file_knows_nothing_and_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "snapshot.db"
    if content is not None:
        path.write_bytes(content)
    reader = Reader(path, SharedState(None).changes, time.monotonic)
    assert reader.look_up([LicenseQuery("k")]) == [None]
    assert not reader.has_key("k")
    reader.close()
