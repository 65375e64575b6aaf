"""A node whose process has no threads between requests, as wsgi.py makes it, and the supervisor that is beside it.

That each process which a server forks has an application of its own, `tests/journeys/` shows under uWSGI.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from api.app import create_app
from api.config.settings import Settings
from api.ledger import tables
from api.supervisor import companion
from api.supervisor.start import SupervisorRuns
from tests.support.nodes import Node, environment, rows, sell

#: They end a statement or a connection that hangs: nothing needs them once its request is answered.
_OF_A_REQUEST = {"watchdog", "connecting"}


@pytest.fixture
def node(ledger_url: str, tmp_path: Path) -> Iterator[Node]:
    node = Node(create_app(Settings.from_env(environment(ledger_url, tmp_path / "data")), background=False))
    yield node
    node.runtime.stop()


def test_it_answers_and_no_thread_of_its_own_is_left(node: Node) -> None:
    before = set(threading.enumerate())
    assert node.http.get("/livez").status_code == 200
    assert node.runtime.signing.signer is None, "/livez starts nothing"
    sold = sell(node.database)
    node.ready()
    assert node.call("validate", sold.key).code == "VALID"
    assert node.call("activate", sold.key, fingerprint="f" * 32).code == "VALID"
    assert {thread.name for thread in set(threading.enumerate()) - before} <= _OF_A_REQUEST
    [trouble] = node.http.get("/readyz").json["troubles"]  # type: ignore[index]
    assert "run-supervisor" in trouble
    assert rows(node.database, tables.heartbeats) == [], "it is no supervisor"


def test_a_supervisor_refuses_beside_another(sqlite_url: str, tmp_path: Path) -> None:
    settings = Settings.from_env(environment(sqlite_url, tmp_path))
    with FileLock(tmp_path / "supervisor.lock"), pytest.raises(SupervisorRuns):
        companion.run_alone(settings, threading.Event())
