"""The page that takes an author from nothing to a protected program, done as it is written, on a port of its own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from license_client import ConfigurationError, machine_fingerprint
from tests.support.pages import Block, Desk, blocks
from tests.support.processes import ROOT, free_port

README = (ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")

LOGS = {"license_server_used.txt", "license_server_failover.txt", "license_offline_success.txt"}

PROGRAM = "sys.argv[1]"
#: What the page has a reader write whose system has no id of its own.
ITS_ID, OWN_NAME, OWN_SETTING = "machine_fingerprint(vendor.PRODUCT)", '"my-machine-1"', 'fingerprint = "my-machine-1"'


class Page:
    """The page's blocks, in their order, for another port."""

    def __init__(self, port: int) -> None:
        self.blocks = blocks(README.replace(":5000", f":{port}").replace(":5001", f":{free_port()}"))

    def commands(self) -> list[str]:
        return [block.text for block in self.blocks if block.kind == "sh"]

    def program(self) -> str:
        (found,) = [block.text for block in self.blocks if block.kind == "python" and PROGRAM in block.text]
        return found

    def shown_after(self, command: str, number: int = 0) -> str:
        """What the page shows as the output of the `number`th block with this command."""
        at = [place for place, block in enumerate(self.blocks) if block == Block("sh", command)][number]
        return self.blocks[at + 1].text


def _has_an_id() -> bool:
    try:
        return bool(machine_fingerprint())
    except ConfigurationError:
        return False


def installed(desk: Desk, commands: str) -> None:
    """What the page has the reader install. pip builds and installs from its index: without one it is a loud skip."""
    done = desk.keep(commands)
    if done.returncode and "No matching distribution found" in done.stderr and not os.environ.get("CI"):
        pytest.skip(f"NO PACKAGE INDEX: pip needs one: {done.stderr}")
    assert done.returncode == 0, done.stderr


def for_a_system_without_an_id(text: str) -> str:
    """The page's program, or its settings for the command line, changed as the page says."""
    assert f"`{ITS_ID}`: `{OWN_NAME}`" in README.replace("\n", " ")
    assert f"add `{OWN_SETTING}`" in README
    return text.replace(f"={ITS_ID}", f"={OWN_NAME}").replace("product = ", f"{OWN_SETTING}\nproduct = ")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the page is for a Posix shell")
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    port, desk, as_here = free_port(), Desk(tmp_path), str if _has_an_id() else for_a_system_without_an_id
    page, program = Page(port), desk.root / "data" / "my-program" / "program.py"
    start, install, vendor, with_key, with_another, again, command_line = page.commands()
    assert (start, with_key) == ("make run\n", again)

    with desk.make_run(port) as server:
        server.wait_until_answers("/readyz", 120)
        installed(desk, install)
        assert list(desk.root.glob("data/my-program/.venv/lib/*/site-packages/license_client/py.typed"))
        done = desk.keep(vendor)
        assert done.returncode == 0, done.stderr
        program.write_text(as_here(page.program()), encoding="utf-8")
        for _ in range(2):
            assert desk.run(with_key).stdout == page.shown_after(with_key)
        refused = desk.run(with_another)
        assert (refused.returncode, refused.stderr) == (1, page.shown_after(with_another))

        server.interrupt()
        offline = desk.run(again)
        assert offline.stdout == page.shown_after(again, 1), offline.stderr
        assert {path.name for path in desk.temporary.iterdir()} >= LOGS

    with desk.make_run(port) as server:
        server.wait_until_answers("/readyz", 120)
        done = desk.run(f"set -e\n{as_here(command_line)}")
        assert done.returncode == 0, done.stderr
        assert re.findall(r'"?code"?:?\s+"?(\w+)', done.stdout) == ["VALID", "VALID", "VALID", "OFFLINE_VALID", "VALID"]
        program.write_text(for_a_system_without_an_id(page.program()), encoding="utf-8")
        assert desk.run(with_key).stdout == page.shown_after(with_key)
