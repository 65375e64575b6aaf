"""The `flask` program as an administrator runs it: as a process of its own, or its commands within the test's."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner

from api.admin.kinds import Kind
from api.cli.context import context_of
from api.cli.root import create_cli
from api.config.settings import Settings
from api.logs import ROOT as LOGGER
from tests.support.processes import DEADLINE_S, ROOT

FLASK = Path(sys.executable).parent / "flask"
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONDONTWRITEBYTECODE")
_LOGGERS = (LOGGER, "apscheduler")

Json = dict[str, Any]


class Cli:
    """Runs the commands of `flask ...` in this process, with `env` as all their settings."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)

    def run(self, *arguments: str, input: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """One command to its end, whatever its exit status. No error may leave it as an exception."""
        commands, umask = create_cli().cli, os.umask(0o077)
        before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in _LOGGERS}
        try:
            with mock.patch.dict(os.environ, self._environ(), clear=True), _of_this_thread_only():
                done = CliRunner().invoke(commands, arguments, input=input, prog_name="flask")
        finally:
            os.umask(umask)
            for name, (handlers, level) in before.items():  # the runner's own streams are closed by now
                logging.getLogger(name).handlers[:] = handlers
                logging.getLogger(name).setLevel(level)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

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

    def _environ(self) -> dict[str, str]:
        return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | self.env


class Program(Cli):
    """Runs `flask ...` itself, a process at the repository's root, for what only that can show. It takes seconds."""

    def run(self, *arguments: str, input: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """One command to its end, whatever its exit status. No expected error may show a traceback."""
        raw = input.encode() if isinstance(input, str) else input
        command, patience_s = [str(FLASK), *arguments], 4 * DEADLINE_S
        done = subprocess.run(
            command, cwd=ROOT, env=self._environ(), input=raw, capture_output=True, timeout=patience_s
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)


def make_policy(env: Mapping[str, str], **rules: Any) -> Json:
    """A new policy of the product `app`, made without a process; its licenses may be asked about without a machine."""
    with context_of(Settings.from_env(env)) as context:
        if not context.resources.page(Kind.PRODUCT, {"product": "app"})["items"]:
            context.resources.create(Kind.PRODUCT, {"code": "app", "name": "App"})
        return context.resources.create(
            Kind.POLICY, {"product": "app", "name": "A policy", "require_fingerprint": False, **rules}
        )


@contextlib.contextmanager
def _of_this_thread_only() -> Iterator[None]:
    """A node of an earlier test that still ends in this process logs on the same stream: no output of this command."""
    emit, thread = logging.StreamHandler.emit, threading.get_ident()

    def emit_ours(handler: Any, record: logging.LogRecord) -> None:
        if record.thread == thread:
            emit(handler, record)

    with mock.patch.object(logging.StreamHandler, "emit", emit_ours):
        yield
