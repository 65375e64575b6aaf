"""Migrations: applied once by whoever comes first, the same schema as the tables name, and newer ones lived with."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from api.ledger import migrate, tables
from api.ledger.database import Database
from api.ledger.neighbours import VERSION_TABLE
from tests.support.nodes import rows as rows_of
from tests.support.nodes import running_node, sell
from tests.support.processes import ROOT

_NODES, _PROCESSES = 3, 2


@pytest.fixture
def empty(empty_ledger_url: str) -> Iterator[Database]:
    database = Database(empty_ledger_url)
    yield database
    database.close()


def start_node(url: str, folder: Path, begin: float) -> None:
    """One process of a node: waits for the second in which all start, and ends when it is ready."""
    time.sleep(max(0.0, begin - time.time()))
    with running_node(url, folder, SIGNING_KEY=(folder / "key.pem").read_text()):
        pass


def test_three_nodes_of_two_processes_start_in_the_same_second_on_an_empty_database(
    empty: Database, tmp_path: Path
) -> None:
    from tests.support.nodes import signing_key

    context, begin = multiprocessing.get_context("spawn"), time.time() + 4
    processes = []
    for number in range(_NODES):
        folder = tmp_path / f"node-{number}"
        folder.mkdir()
        (folder / "key.pem").write_text(signing_key())
        for _ in range(_PROCESSES):
            processes.append(context.Process(target=start_node, args=(empty.url, folder, begin)))
            processes[-1].start()
    for process in processes:
        process.join(150)
    assert [process.exitcode for process in processes] == [0] * _NODES * _PROCESSES
    assert len(rows_of(empty, tables.ledger)) == 1
    assert [row["seq"] for row in rows_of(empty, tables.log_head)] == [0]
    assert [row["status"] for row in rows_of(empty, tables.signing_keys)] == ["current"]
    assert migrate.revision(empty) == migrate.HEAD


def test_the_newest_revision_is_the_one_that_nodes_ask_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [migrate.HEAD]
    revisions = sorted(script.revision for script in scripts.walk_revisions())
    assert all(revision.isdigit() and len(revision) == 4 for revision in revisions)
    assert revisions[-1] == migrate.HEAD


def test_migrations_make_exactly_the_tables_that_statements_name(empty: Database) -> None:
    assert migrate.upgrade(empty)
    with empty.reading() as connection:
        opts = {"compare_server_default": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, tables.metadata) == []


def test_an_upgraded_ledger_is_left_alone(empty: Database) -> None:
    assert migrate.revision(empty) is None
    assert migrate.upgrade(empty)
    founded = rows_of(empty, tables.ledger)
    assert not migrate.upgrade(empty)
    assert rows_of(empty, tables.ledger) == founded


def test_a_migration_that_fails_leaves_nothing_behind(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_connection: object) -> None:
        raise RuntimeError("told to fail")

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_found_ledger", fail)
        with pytest.raises(RuntimeError):
            migrate.upgrade(empty)
    assert migrate.revision(empty) is None
    assert migrate.upgrade(empty)
    assert len(rows_of(empty, tables.ledger)) == 1


def test_a_node_lives_with_a_newer_schema_and_does_not_take_it_back(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.execute(text("UPDATE protecao_version SET version_num = '9999'"))
        connection.execute(text("ALTER TABLE licenses ADD COLUMN colour VARCHAR(10)"))
    with running_node(ledger_url, tmp_path) as node:
        sold = sell(node.database)
        # No copy has this license: a ledger that takes longer than its budget, on a busy machine, is asked again.
        assert node.insist("activate", sold.key, fingerprint="f", request_id="newer-schema").code == "VALID"
    assert migrate.revision(database) == "9999"
    database.close()
