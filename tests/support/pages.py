"""Pages that take their reader from nothing to something: their blocks, and the reader's desk to do them at.

The desk is a copy of the repository with one shell, in which the pages' commands run as they are written, and a
terminal for `make run`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import ROOT, ServerProcess

#: What a node and its clients are made of.
_OF_THE_REPOSITORY = ("Makefile", "requirements.txt", "api", "failover", "migrations", "clients")
_MADE = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".venv")

#: Where pip finds its index and what it has downloaded, below the home folder and in the environment.
_PIPS_PLACES = (".config/pip", ".pip", ".cache/pip")
_PIPS_NAMES = re.compile(r"PIP_\w+|(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE", re.IGNORECASE)

_BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
#: Lines after which the shell is another one: in another folder, with other programs, with a function more.
_LASTING = ("cd ", ". ", "value() ")
_DEADLINE_S = 300


class Block(NamedTuple):
    """`kind` is what is written after the opening fence; nothing for what a program says."""

    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*match.groups()) for match in _BLOCK.finditer(page)]


class Desk:
    """A copy of the repository in `folder / "repository"`, and who sits before it: nobody's home, nobody's settings."""

    def __init__(self, folder: Path) -> None:
        self.root, self.temporary = folder / "repository", folder / "temporary"
        self.temporary.mkdir()
        _copy(_OF_THE_REPOSITORY, self.root)
        passed_on = {name: text for name, text in os.environ.items() if name == "LANG" or _PIPS_NAMES.fullmatch(name)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home = _home_for_pip(folder / "home")
        self._environment = {**passed_on, "PATH": path, "HOME": str(home), "TMPDIR": str(self.temporary)}
        self._before = ""

    def make_run(self, port: int) -> ServerProcess:
        """`make run` in a terminal, just started. One worker, which is ready once it is; the tests' own environment."""
        env = {"VENV": sys.prefix, "WEB_CONCURRENCY": "1"}
        return ServerProcess(["make", "run"], env, port=port, cwd=self.root)

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """The commands in the shell as it is; it stays as it is."""
        return subprocess.run(
            ["sh", "-c", f"{self._before}\n{commands}"],
            cwd=self.root, env=self._environment, capture_output=True, text=True, timeout=_DEADLINE_S,
        )  # fmt: skip

    def keep(self, commands: str) -> subprocess.CompletedProcess[str]:
        """`run` up to the first command that fails; the shell is in another folder afterwards, or knows more."""
        done = self.run(f"set -e\n{commands}")
        if done.returncode == 0:
            self._before += "".join(line for line in commands.splitlines(True) if line.startswith(_LASTING))
        return done


def _copy(names: Iterable[str], root: Path) -> None:
    root.mkdir()
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=_MADE)
        else:
            shutil.copy2(source, root / name)


def _home_for_pip(home: Path) -> Path:
    """An empty home folder, but for what pip knows of its index."""
    for place in _PIPS_PLACES:
        there, here = Path.home() / place, home / place
        here.parent.mkdir(parents=True, exist_ok=True)
        if there.exists():
            here.symlink_to(there)
    return home
