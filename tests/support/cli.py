"""The `flask` program as an administrator runs it: a process of its own at the repository's root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.cli.desk import desk_of
from api.resources.kinds import Kind
from api.settings import Settings
from tests.support.processes import DEADLINE_S, ROOT

FLASK = Path(sys.executable).parent / "flask"
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONDONTWRITEBYTECODE")

Json = dict[str, Any]


class Cli:
    """Runs `flask ...` with `env` as all its settings."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)

    def run(self, *arguments: str, input: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """One command to its end, whatever its exit status. No expected error may show a traceback."""
        raw = input.encode() if isinstance(input, str) else input
        harmless = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        done = subprocess.run(
            [FLASK, *arguments],
            cwd=ROOT,
            env=harmless | self.env,
            input=raw,
            capture_output=True,
            timeout=4 * DEADLINE_S,
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)

    def ok(self, *arguments: str, input: str | bytes = "") -> str:
        """What a command prints that succeeds."""
        done = self.run(*arguments, input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, *arguments: str, status: int = 1, input: str | bytes = "") -> str:
        """What a command says on stderr that ends with `status`."""
        done = self.run(*arguments, input=input)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stderr


def make_policy(env: Mapping[str, str], **rules: Any) -> Json:
    """A new policy of the product `app`, made without a process."""
    with desk_of(Settings.from_env(env)) as desk:
        if not desk.resources.page(Kind.PRODUCT, {"product": "app"})["items"]:
            desk.resources.create(Kind.PRODUCT, {"code": "app", "name": "App"})
        return desk.resources.create(Kind.POLICY, {"product": "app", "name": "A policy", **rules})
