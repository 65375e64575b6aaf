"""`flask run` would serve the command line, which has no routes."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import Program
from tests.support.nodes import environment


def test_flask_run_refuses_and_says_how_a_node_is_started(sqlite_url: str, tmp_path: Path) -> None:
    said = Program(environment(sqlite_url, tmp_path)).fails("run", "--port", "0")
    assert "make run" in said
    assert "cd api && python app.py" in said
