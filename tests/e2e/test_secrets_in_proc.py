"""Of what a server was started with, its secrets are to be read in no process's `/proc/<pid>/environ`."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from api.config.secret_files import generate_secrets
from tests.support.nodes import environment
from tests.support.processes import ROOT, ServerProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what /proc shows is Linux's")


def environments() -> dict[int, bytes]:
    """What every process of this machine that we may look into was started with."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            found[int(folder.name)] = (folder / "environ").read_bytes()
        except (ValueError, OSError):
            continue
    return found


def test_no_process_of_a_server_shows_its_secrets_and_those_that_come_later_do_not_either(
    ledger_url: str, tmp_path: Path
) -> None:
    secrets = {**generate_secrets().settings(), "DATABASE_URL": ledger_url}
    env = environment(ledger_url, tmp_path, WEB_CONCURRENCY="2") | secrets
    with ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as server:
        server.wait_until_answers("/readyz", 90)
        first = until(lambda: all_of(server), "all of its processes", 30)
        assert_hidden(secrets, {server.process.pid, *(process.pid for process in first)})
        first[-1].kill()
        until(lambda: {one.pid for one in server.descendants()} - {one.pid for one in first}, "another process", 60)
        server.wait_until_answers("/readyz", 90)
        assert_hidden(secrets, {server.process.pid, *(process.pid for process in server.descendants())})
        server.signal()
        assert server.wait() == 0


def all_of(server: ServerProcess) -> list[psutil.Process]:
    """Below the master: the supervisor, Granian, its two workers. None of them before all are there."""
    found = server.descendants()
    return found if len(found) >= 4 else []


def assert_hidden(secrets: dict[str, str], expected: set[int]) -> None:
    seen = environments()
    assert expected <= seen.keys()
    for pid in expected:
        assert b"DATA_DIR=" in seen[pid], "what is not secret is still there"
    for name, secret in secrets.items():
        assert [pid for pid, shown in seen.items() if secret.encode() in shown] == [], name
