"""The databases that tests get: each its own, migrated, and the server behind them survives what chaos does to it."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import create_engine, inspect, make_url

from tests.support.databases import create_database, drop_database, ensure_template
from tests.support.postgres import PostgresServer


def _tables(url: str) -> set[str]:
    parsed = make_url(url)
    engine = create_engine(parsed if url.startswith("sqlite") else parsed.set(drivername="postgresql+psycopg2"))
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_a_ledger_comes_migrated(ledger_url: str) -> None:
    assert {"licenses", "events", "protecao_version"} <= _tables(ledger_url)


def test_an_empty_ledger_has_no_tables(empty_ledger_url: str) -> None:
    assert _tables(empty_ledger_url) == set()


def test_a_template_is_filled_once_and_not_at_all_where_filling_fails(postgres_server: dict[str, str]) -> None:
    server, name = postgres_server["postgres_url"], f"{postgres_server['postgres_run']}_once"
    filled: list[str] = []

    def fail(url: str) -> None:
        raise ValueError(url)

    try:
        with pytest.raises(ValueError):
            ensure_template(server, name, fail)
        for _ in range(2):
            ensure_template(server, name, filled.append)
        assert len(filled) == 1
    finally:
        drop_database(server, name)


def test_the_server_keeps_what_was_committed_through_a_kill_and_a_freeze(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "server") as server:
        url = server.create_database("kept")
        _execute(url, "CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        assert not server.running
        server.start()
        server.freeze()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(url, connect_timeout=2)
        server.thaw()
        server.restart("immediate")
        assert server.url("kept") == url
        _execute(create_database(server.url(), "copy", "kept"), "SELECT one FROM kept")
    assert not server.running


def test_the_server_flushes_to_disk_and_takes_200_connections(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "server") as server:
        shown = [_execute(server.url(), f"SHOW {name}") for name in ("fsync", "synchronous_commit", "max_connections")]
    assert shown == ["on", "on", "200"]


def _execute(url: str, statement: str) -> object:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()
