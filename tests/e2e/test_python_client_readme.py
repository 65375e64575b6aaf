"""The page that takes an author from nothing to a protected program, done as it is written.

The server is started by the test, on a port of its own, and the client is the one that is installed already; all other
commands are the page's own, in its order, in one shell.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from license_client import ConfigurationError, machine_fingerprint
from tests.support.processes import ROOT, ServerProcess, free_port

README = (ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)

#: What the page has the reader do by other means than a command that ends.
STARTS_THE_SERVER, INSTALLS, PROGRAM = "make run", "pip install", "sys.argv[1]"


class Page:
    """The page's blocks, in their order, for another port."""

    def __init__(self, port: int) -> None:
        text = README.replace(":5000", f":{port}").replace(":5001", f":{free_port()}")
        self.blocks = [(match[1], match[2]) for match in BLOCK.finditer(text)]

    def commands(self) -> list[str]:
        return [text for kind, text in self.blocks if kind == "sh"]

    def program(self) -> str:
        (found,) = [text for kind, text in self.blocks if kind == "python" and PROGRAM in text]
        return found

    def shown_after(self, command: str, number: int = 0) -> str:
        """What the page shows as the output of the `number`th block with this command."""
        at = [place for place, block in enumerate(self.blocks) if block == ("sh", command)][number]
        return self.blocks[at + 1][1]


class Shell:
    """One shell over several runs: it stays in its folder and keeps its functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: os.environ[name] for name in ("LANG",) if name in os.environ},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary"),
        }  # fmt: skip
        (folder / "temporary").mkdir()
        self._before = ""

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """The command, in the shell as it is."""
        script = f"{self._before}\n{command}"
        return subprocess.run(
            ["sh", "-c", script], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )

    def keep(self, command: str) -> None:
        """A command that has to succeed, and after which the shell is in another folder or knows a function more."""
        done = self.run(f"set -e\n{command}")
        assert done.returncode == 0, done.stderr
        self._before += "".join(line for line in command.splitlines(True) if line.startswith(("cd ", "value() ")))


def _has_an_id() -> bool:
    try:
        return bool(machine_fingerprint())
    except ConfigurationError:
        return False


@pytest.mark.skipif(os.name != "posix", reason="the page is for a Posix shell")
@pytest.mark.skipif(not _has_an_id(), reason="THIS SYSTEM HAS NO MACHINE ID, which the page needs: /etc/machine-id")
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "data" / "my-program"
    folder.mkdir(parents=True)
    page, shell = Page(port), Shell(tmp_path)
    start, install, vendor, with_key, with_another, again, command_line = page.commands()
    assert start.strip() == STARTS_THE_SERVER
    assert INSTALLS in install
    assert with_key == again
    env = {"DATA_DIR": str(tmp_path / "data"), "PROTECAO_DEMO": "1", "WEB_CONCURRENCY": "1"}
    with ServerProcess.python("app.py", env=env, port=port, cwd=ROOT / "api") as server:
        server.wait_until_answers("/readyz", 120)
        shell.keep(vendor)
        (folder / "program.py").write_text(page.program(), encoding="utf-8")
        for _ in range(2):
            assert shell.run(with_key).stdout == page.shown_after(with_key)
        refused = shell.run(with_another)
        assert (refused.returncode, refused.stderr) == (1, page.shown_after(with_another))

        done = shell.run(f"set -e\n{command_line}")
        assert done.returncode == 0, done.stderr
        assert "OFFLINE_VALID" in done.stdout
        assert shell.run(with_key).stdout == page.shown_after(with_key)
    offline = shell.run(with_key)
    assert offline.stdout == page.shown_after(with_key, 1), offline.stderr
    logs = {path.name for path in (tmp_path / "temporary").iterdir()}
    assert {"license_server_used.txt", "license_server_failover.txt", "license_offline_success.txt"} <= logs
