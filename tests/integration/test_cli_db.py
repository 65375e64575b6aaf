"""`flask db`: the schema, and the check that what the ledger says twice agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.cli.db import differences
from api.ledger import migrate, tables
from tests.support.cli import Cli
from tests.support.nodes import environment, opened_ledger, running_node, sell


def test_an_empty_database_is_brought_to_the_newest_schema_once(empty_ledger_url: str, tmp_path: Path) -> None:
    cli = Cli(environment(empty_ledger_url, tmp_path))
    assert cli.json("db", "current") == {"revision": None, "newest": migrate.HEAD}
    assert "no schema yet" in cli.fails("db", "check")
    made = f"The schema is now at {migrate.HEAD}, and every license can be searched for.\n"
    assert cli.ok("db", "upgrade") == made
    assert cli.ok("db", "upgrade") == made.replace("is now at", "is at")
    assert cli.json("db", "current")["revision"] == migrate.HEAD
    assert "Seats and log agree." in cli.ok("db", "check")


@pytest.mark.parametrize(
    ("table", "values", "where"),
    [
        (tables.licenses, {"seats": 2}, "licenses.seats"),
        (tables.licenses, {"excess": 1}, "licenses.excess"),
        (tables.machines, {"active": False}, "licenses.seats"),
        (tables.log_head, {"seq": 7}, "log_head.seq"),
    ],
)
def test_a_ledger_that_contradicts_itself_is_found_out(
    ledger_url: str, tmp_path: Path, table: Any, values: dict[str, Any], where: str
) -> None:
    with running_node(ledger_url, tmp_path) as node:
        node.call("activate", sell(node.database).key, fingerprint="pc")
        assert differences(node.database) == []
        with node.database.writing() as connection:
            connection.execute(update(table).values(values))
        assert [found["where"] for found in differences(node.database)] == [where]


def test_a_difference_is_shown_with_exit_status_1(sqlite_url: str, tmp_path: Path) -> None:
    with opened_ledger(sqlite_url) as ledger, ledger.database.writing() as connection:
        connection.execute(update(tables.log_head).values(seq=7))
    done = Cli(environment(sqlite_url, tmp_path)).run("db", "check")
    assert done.returncode == 1
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [["log_head.seq", "-", "7", "0"]]
