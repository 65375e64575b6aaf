"""States nobody wants, in one node: a queue at its limit, a copy of another ledger, a schema of another release."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import select, text

from api.ledger import migrate, tables
from api.ledger.database import Database
from api.signing import key_claim
from failover import Event, EventQueue
from tests.integration.test_isolated import back, caught_up, copied, drained, gone, stats_of
from tests.support.admin import Admin
from tests.support.cli import Cli
from tests.support.nodes import Answer, Node, environment, rows, running_node, starting_node
from tests.support.postgres import PostgresServer
from tests.support.processes import ROOT, until

_BUDGET = {"LEDGER_BUDGET": "0.5"}


@pytest.fixture
def node(url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(url, tmp_path / "a", **_BUDGET) as node:
        yield node


def troubles(node: Node) -> str:
    return "\n".join(node.http.get("/readyz").json["troubles"])  # type: ignore[index]


# -- a queue at its limit ---------------------------------------------------------------------------------------------


def fill(queue: EventQueue, count: int, key: str = "") -> list[int]:
    """Puts `count` events into the queue; gives their places."""
    before = queue.stats().total
    return queue.append([Event(f"filler-{before + n}", "validate", "{}", 0.0, key) for n in range(count)])


def is_full(answer: Answer) -> bool:
    """Whether it is the problem of the contract, with everything that belongs to it."""
    told = (answer.status, answer.code) == (503, "QUEUE_FULL")
    assert not told or answer.response.headers["Retry-After"]
    return told


def test_a_queue_at_its_limit_is_said_and_takes_again_once_there_is_room(server: PostgresServer, node: Node) -> None:
    admin = Admin(node)
    greedy, other = copied(admin), copied(admin)
    gone(server, node, other["key"])
    queue = EventQueue(node.runtime.settings.queue_path)
    limits = queue.limits
    share = int(limits.events * limits.share)
    assert share == limits.events // 20, "one license may fill 5 %"
    held = fill(queue, share - 1, greedy["id"])
    assert node.call("validate", greedy["key"]).body["durability"] == "queue"
    assert is_full(node.call("validate", greedy["key"])), "its share is full"
    assert node.call("validate", other["key"]).code == "VALID", "the others go on"
    assert "queue" not in troubles(node)

    held += fill(queue, limits.events - queue.stats().pending)
    assert is_full(node.call("validate", other["key"]))
    until(lambda: "queue is full" in troubles(node), "/readyz says so")
    until(lambda: stats_of(node)["sync"]["queue"]["pending"] == limits.events, "/stats says so")
    assert node.http.get("/readyz").status_code == 200
    assert queue.stats().pending == limits.events, "nothing was dropped"

    queue.acknowledge(held)
    assert node.call("validate", other["key"]).body["durability"] == "queue"
    assert node.call("validate", greedy["key"]).body["durability"] == "queue"
    until(lambda: "queue" not in troubles(node), "/readyz says that it is over")
    queue.close()
    back(server, node)
    until(lambda: node.call("validate", other["key"]).body["durability"] == "ledger", "it is back at its ledger")


# -- a disk that takes nothing at the start ----------------------------------------------------------------------------


def test_a_worker_that_starts_without_a_disk_goes_on_without_its_ledger_once_there_is_one(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    (tmp_path / "disk").touch()  # a file, in which no folder can be made
    with starting_node(url, tmp_path / "disk" / "data", **_BUDGET) as node:
        admin = Admin(node.ready())
        license = admin.license(policy=admin.policy())
        assert "DATA_DIR takes nothing" in troubles(node)
        assert node.call("usage", license["key"]).body["durability"] == "ledger"
        (tmp_path / "disk").unlink()
        until(lambda: "DATA_DIR" not in troubles(node), "the disk takes something")
        until(lambda: node.runtime.reader.has_key(key_claim(license["key"])), "a copy of the license")
        gone(server, node, license["key"])
        assert node.call("usage", license["key"]).body["license"]["uses"] == 2
        drained(server, node)
        assert node.call("usage", license["key"]).body["license"]["uses"] == 3


# -- a copy of another ledger -----------------------------------------------------------------------------------------


def test_a_copy_of_another_ledger_is_said_and_answers_nothing(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        license = copied(Admin(node))
        caught_up(node)
    server.stop()
    other = url.rsplit("/", 1)[0] + "/another_ledger"
    with starting_node(other, tmp_path, **_BUDGET) as node:
        until(lambda: "copy here is of another" in node.http.get("/readyz").json["waiting_for"], "the reason")  # type: ignore[index]
        assert node.http.get("/readyz").status_code == 503
        assert node.call("validate", license["key"]).code == "STARTING"


def test_a_copy_of_another_ledger_is_made_anew_where_that_answers(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        license = copied(Admin(node))
        caught_up(node)
        before = node.runtime.reader.usable(node.runtime.clock.now())
    name = "another_" + url.rsplit("_", 1)[1]
    other = server.create_database(name)
    try:
        Cli(environment(other, tmp_path)).ok("db", "adopt")
        with running_node(other, tmp_path, **_BUDGET) as node:
            sold = copied(Admin(node))
            caught_up(node)
            position = node.runtime.reader.usable(node.runtime.clock.now())
            assert before is not None
            assert position is not None
            assert position.ledger_id != before.ledger_id
            node.runtime.reader.max_age_s = 1.0  # the hot path reads the copy
            assert node.call("validate", license["key"]).code == "NOT_FOUND"
            assert node.call("validate", sold["key"]).code == "VALID"
            gone(server, node, sold["key"])
            assert node.call("validate", license["key"]).status == 503, "nobody here knows it"
    finally:
        server.start()
        server.drop_database(name)


# -- a queue of another ledger -----------------------------------------------------------------------------------------


def test_a_queue_of_another_ledger_is_kept_aside_and_said_and_goes_to_its_own(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        license = copied(Admin(node))
        gone(server, node, license["key"])
        assert node.call("usage", license["key"]).body["durability"] == "queue"
    with FileLock(tmp_path / "supervisor.lock", timeout=60):
        pass  # it has given up: what it takes to its ledger now it takes to no other
    server.start()
    name = "another_" + url.rsplit("_", 1)[1]
    other = server.create_database(name)
    try:
        Cli(environment(other, tmp_path)).ok("db", "adopt")
        with running_node(other, tmp_path, **_BUDGET) as node:
            until(lambda: "holds events of another ledger" in troubles(node), "/readyz says so")
            (aside,) = tmp_path.glob("sync_queue.db.of-another-ledger-*Z-*[0-9]")
            assert rows(node.database, tables.events, type="usage") == rows(node.database, tables.replay_findings) == []
            sold = copied(Admin(node))
            gone(server, node, sold["key"])
            assert node.call("usage", sold["key"]).body["durability"] == "queue", "the queue takes this ledger's"
            drained(server, node)
            assert len(rows(node.database, tables.events, type="usage")) == 1
    finally:
        server.drop_database(name)
    with running_node(url, tmp_path, QUEUE_PATH=str(aside), **_BUDGET) as node:
        until(lambda: len(rows(node.database, tables.events, type="usage")) == 1, "it has come to its own")
        assert "another ledger" not in troubles(node)


# -- a schema of another release --------------------------------------------------------------------------------------

_REVISION = f"{int(migrate.HEAD) + 1:04}"
_NEXT = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{_REVISION}", "{migrate.HEAD}"


def upgrade():
    op.add_column("licenses", sa.Column("colour", sa.String(10), nullable=False, server_default="red"))
    op.add_column("events", sa.Column("weight", sa.Integer()))
    op.create_table("colours", sa.Column("name", sa.String(10), primary_key=True))
"""


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A function's worth of the release to come: within the patch, a schema is brought to its revision."""
    folder = tmp_path / "migrations-of-the-next-release"
    shutil.copytree(ROOT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / f"{_REVISION}_colour.py").write_text(_NEXT)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_MIGRATIONS", folder)
        patch.setattr(migrate, "HEAD", _REVISION)
        yield patch


def test_an_older_release_runs_beside_a_newer_one_and_starts_after_it(
    server: PostgresServer, node: Node, url: str, tmp_path: Path, next_release: pytest.MonkeyPatch
) -> None:
    admin, newer, older = Admin(node), Database(url), f"{int(_REVISION) - 1:04}"
    license = copied(admin)
    assert migrate.revision(newer) == older
    assert migrate.upgrade(newer), "the node with the older schema is the newer release's: it brings it up"
    next_release.undo()
    assert older == migrate.HEAD
    with newer.writing() as connection:
        connection.execute(text("UPDATE licenses SET colour = 'blue'"))
    for act in ("activate", "ping", "validate", "usage", "deactivate"):
        assert node.call(act, license["key"], **({} if act == "usage" else {"fingerprint": "pc"})).code == "VALID"
    assert node.call("validate", copied(admin)["key"]).code == "VALID", "its copy follows"
    gone(server, node, license["key"])
    assert node.call("usage", license["key"]).body["durability"] == "queue"
    back(server, node)
    until(lambda: not node.runtime.state.breaker.may_hold_queued, "what was queued is replayed")
    with running_node(url, tmp_path / "b", NODE_ID="b", NODE_RANK="2", **_BUDGET) as second:
        assert second.call("validate", license["key"]).body["license"]["uses"] == 2
    newer.engine.dispose()
    assert migrate.revision(newer) == _REVISION
    with newer.reading() as connection:
        assert connection.scalar(text("SELECT colour FROM licenses WHERE id = :id"), {"id": license["id"]}) == "blue"
        assert connection.scalar(select(tables.log_head.c.seq)) > 0
    newer.close()


#: An index that is no constraint may go as well: no statement of a release asks for one.
_ADDING = {"create_table", "create_index", "add_column", "execute", "get_bind", "f", "drop_index"}
#: How a table is stored, which no statement sees.
_STORED = "ALTER TABLE {table} SET ({parameters})"
#: The same function to a node that calls it, but for what it refuses; and a row of a table that only newer nodes read.
_SAME = ("CREATE OR REPLACE FUNCTION record_batch(", "INSERT OR REPLACE INTO license_search ")
_TAKING = ("DROP ", "RENAME ", "ALTER ", "OR REPLACE", "DELETE FROM", "TRUNCATE ")


def test_migrations_only_add_what_the_release_before_can_live_with() -> None:
    """By what they call and say: what takes away, renames or changes a function would break nodes that still run."""
    for path in sorted((ROOT / "migrations" / "versions").glob("*.py")):
        written = path.read_text()
        called = set(re.findall(r"\bop\.(\w+)\(", written))
        assert called <= _ADDING, f"{path.name} does {sorted(called - _ADDING)}"
        for harmless in (_STORED, *_SAME):
            written = written.replace(harmless, "")
        assert [word for word in _TAKING if word in written] == [], path.name
        dropped = set(re.findall(r'op.drop_index\("(\w+)"', written))
        assert dropped <= {"ix_heartbeats_beat_at"}, f"{path.name}: {dropped} may be a constraint"
        added = [part for part in written.split("op.add_column(")[1:] if "nullable=False" in part.split("op.")[0]]
        assert all("server_default" in part.split("op.")[0] for part in added), f"{path.name}: rows of older nodes"
