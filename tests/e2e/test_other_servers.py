"""`create_app()` under another WSGI server: as many processes as it likes, one of which supervises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from api.ledger import tables
from api.ledger.database import Database
from tests.support.nodes import ADMIN_TOKEN, environment, rows
from tests.support.processes import ServerProcess, free_port, until

_PATIENCE_S = 90.0
_SERVE = """
import os
from werkzeug.serving import run_simple
from api.app import create_app

run_simple("127.0.0.1", int(os.environ["PORT"]), create_app(), threaded=True)
"""


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with contextlib.closing(Database(ledger_url)) as database:
        yield database


def part(server: ServerProcess) -> tuple[str, int]:
    """The role and the epoch that it says its node has."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    node = requests.get(server.url + "/stats", headers=headers, timeout=10).json()["node"]
    return node["role"], node["epoch"]


def test_of_two_processes_one_supervises_and_when_it_is_killed_the_other(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    env = environment(ledger_url, tmp_path)
    with contextlib.ExitStack() as stack:
        # One leads already when the other comes: so it is known which of them supervises.
        first = stack.enter_context(ServerProcess.python("-c", _SERVE, env=env, port=free_port()))
        until(lambda: first.answers("/readyz"), "it serves", _PATIENCE_S)
        until(lambda: part(first) == ("primary", 1), "it leads", _PATIENCE_S)
        second = stack.enter_context(ServerProcess.python("-c", _SERVE, env=env, port=free_port()))
        until(lambda: second.answers("/readyz"), "the other serves", _PATIENCE_S)
        assert part(second) == ("primary", 1), "both say the same of their node"
        assert len(rows(database, tables.heartbeats)) == 1, "one of them supervises"
        (before,) = rows(database, tables.lease)

        first.kill_tree()
        assert second.get("/readyz").status_code == 200, "it serves on"
        until(lambda: part(second) == ("primary", 2), "the other supervises now", _PATIENCE_S)
        (after,) = rows(database, tables.lease)
        assert after["holder"] != before["holder"]
        assert len(rows(database, tables.heartbeats)) == 2
        assert second.get("/readyz").json()["troubles"] == []
