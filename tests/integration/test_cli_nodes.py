"""`flask node`: who beats, and moving the lease from the command line; no node need run for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from api.ledger import tables
from api.ledger.database import Database
from failover import Identity, SqlLeaseStore
from failover.heartbeat import Report, SqlHeartbeatStore
from tests.support.cli import Cli
from tests.support.nodes import environment, rows, sell

ONE, TWO = Identity("instance-1", "node-1", 1), Identity("instance-2", "node-2", 2)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """SQLite's unless a test asks for more: each command is a process of its own."""
    return str(request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def cli(url: str, tmp_path: Path) -> Cli:
    return Cli(environment(url, tmp_path, NODE_ID="here", HEARTBEAT_TIMEOUT="600"))


def beat(database: Database, *members: Identity, ago: float = 0.0) -> None:
    for member in members:
        report = Report(role="standby", state="STANDBY", url=f"https://{member.node}.example", version="1.0.0")
        SqlHeartbeatStore(database).write(member, report)
        with database.writing() as connection:
            age = text(
                "UPDATE heartbeats SET beat_at = beat_at - :ago, started_at = started_at - :ago WHERE instance = :i"
            )
            connection.execute(age, {"ago": ago, "i": member.instance})


def lead(database: Database, member: Identity) -> None:
    assert SqlLeaseStore(database).acquire(member, 600.0) == 1


def lease(database: Database) -> tuple[str, int]:
    (row,) = rows(database, tables.lease)
    return row["holder"], row["epoch"]


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_a_switchover_and_a_promotion_move_the_lease_and_are_recorded(cli: Cli, database: Database) -> None:
    beat(database, ONE, TWO)
    lead(database, ONE)
    assert cli.json("node", "switchover", "node-2") == {"to": "node-2", "epoch": 2}
    assert lease(database) == ("instance-2", 2)
    assert cli.json("node", "promote", "node-1") == {"to": "node-1", "epoch": 3}
    assert lease(database) == ("instance-1", 3)
    recorded = [(row["from_node"], row["to_node"], row["kind"]) for row in rows(database, tables.failovers)]
    assert recorded == [("node-1", "node-2", "switchover"), ("node-2", "node-1", "switchover")]


def test_what_cannot_be_moved_is_said_and_nothing_moves(cli: Cli, database: Database) -> None:
    beat(database, ONE)
    beat(database, TWO, ago=601)
    lead(database, ONE)
    assert "no node nobody has ever beaten here" in cli.fails("node", "switchover", "nobody")
    assert "node-2 does not beat" in cli.fails("node", "promote", "node-2")
    assert "node-1 has the lease already" in cli.fails("node", "switchover", "node-1")
    assert lease(database) == ("instance-1", 1)
    assert rows(database, tables.failovers) == []


def test_a_lease_that_nobody_holds_can_be_promoted_to_and_not_switched_over(cli: Cli, database: Database) -> None:
    beat(database, ONE, TWO)
    assert "nobody has the lease" in cli.fails("node", "switchover", "node-2")
    assert cli.json("node", "promote", "node-2") == {"to": "node-2", "epoch": 1}
    assert SqlLeaseStore(database).resign(TWO, 1)
    assert "nobody has the lease" in cli.fails("node", "switchover", "node-1")
    assert cli.json("node", "promote", "node-1") == {"to": "node-1", "epoch": 2}


def test_of_two_copies_of_a_node_the_younger_one_gets_the_lease(cli: Cli, database: Database) -> None:
    older = Identity("instance-0", "node-2", 2)
    beat(database, ONE)
    beat(database, older, ago=5)
    beat(database, TWO)
    lead(database, ONE)
    cli.ok("node", "switchover", "node-2")
    assert lease(database) == ("instance-2", 2)


def test_a_node_is_listed_once_and_a_second_time_only_while_two_copies_beat(cli: Cli, database: Database) -> None:
    beat(database, ONE, Identity("instance-of-today", "node-2", 2))
    beat(database, TWO, ago=1000)
    listed = cli.json("node", "list")
    assert [(node["id"], node["rank"], node["url"], node["version"]) for node in listed] == [
        ("node-1", 1, "https://node-1.example", "1.0.0"),
        ("node-2", 2, "https://node-2.example", "1.0.0"),
    ]
    assert all(0 <= node["beat_age_s"] < 60 for node in listed)
    beat(database, TWO)
    assert [node["id"] for node in cli.json("node", "list")] == ["node-1", "node-2", "node-2"]


def test_a_node_is_shown_by_its_id_and_this_one_without(cli: Cli, database: Database) -> None:
    beat(database, TWO)
    (shown,) = cli.json("node", "show", "node-2")
    assert (shown["id"], shown["rank"]) == ("node-2", 2)
    assert cli.json("node", "show")["id"] == "here"
    assert "no node of this id" in cli.fails("node", "show", "nobody")


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_the_numbers_of_stats_are_shown(cli: Cli, database: Database) -> None:
    beat(database, ONE)
    lead(database, ONE)
    sell(database)
    found = cli.json("node", "stats")
    members = {"at", "seq", "lease", "nodes", "sync", "licenses", "machines", "checks", "failovers"}
    assert (set(found), found["licenses"]["total"], found["lease"]["holder"]) == (members, 1, ONE.node)
    assert [one["id"] for one in found["nodes"]] == [ONE.node]
