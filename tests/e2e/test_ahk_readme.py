"""The page that takes a script's author from nothing to a protected script, done as it is written, under Wine.

The server has a port of its own; the values are pasted where the page says, and a second script sits before the screen:
it enters the key, reads what the program says and presses the button.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.pages import Desk, blocks
from tests.support.processes import ROOT, free_port
from tests.support.wine import LOGS, Script, windows_path

CLIENTS = ROOT / "clients" / "ahk"
README = (CLIENTS / "README.md").read_text(encoding="utf-8")
ROBOT = ROOT / "tests" / "support" / "wine_robot.ahk"

KINDS = {"v1": "autohotkey", "v2": "autohotkey2"}


def shown(kind: str) -> list[str]:
    return [block.text for block in blocks(README) if block.kind == kind]


class Program:
    """The page's script in a folder of its own, with the values pasted that the page says where to find."""

    def __init__(self, ahk: Script, folder: Path, desk: Desk, port: int) -> None:
        folder.mkdir()
        self._ahk, self._folder = ahk, folder
        demo, public_keys = self._printed(desk, port)
        self.key = str(demo["key"])
        script = shown(KINDS[ahk.version])[0]
        for said, value in {
            ":5000": f":{port}", ":5001": f":{free_port()}",
            "PASTE THE PUBLIC KEYS HERE": public_keys, "PASTE THE API KEY HERE": demo["api_key"],
            "PASTE THE SHARED SECRET HERE": demo["shared_secret"],
        }.items():  # fmt: skip
            assert said in script
            script = script.replace(said, value)
        (folder / "Example.ahk").write_text(script, encoding="utf-8")
        shutil.copy(desk.root / "clients" / "ahk" / ahk.version / "License.ahk", folder)

    @staticmethod
    def _printed(desk: Desk, port: int) -> tuple[dict[str, str], str]:
        """What the page's commands print: the demo's values, and on the last line the public keys."""
        done = desk.keep(shown("sh")[1].replace(":5000", f":{port}"))
        assert done.returncode == 0, done.stderr
        *demo, public_keys = done.stdout.strip().splitlines()
        return json.loads("".join(demo)), public_keys

    def says(self, *key: str) -> str:
        """What the program's last window says; `key` is entered where it asks."""
        heard = self._folder / "heard.txt"
        heard.unlink(missing_ok=True)
        wine = self._ahk.wine
        program = wine.start(self._ahk.version, self._folder / "Example.ahk")
        try:
            wine.finish(wine.start("v2", ROBOT, "My program", windows_path(heard), *key))
            wine.finish(program)
        finally:
            program.kill()
            program.communicate()
        # The button's text comes before the message.
        return "\n".join(heard.read_text(encoding="utf-8").split("\n")[1:]).strip() + "\n"

    def forget_key(self) -> None:
        (self._folder / "license-key.txt").unlink(missing_ok=True)


@pytest.mark.parametrize("version", KINDS)
def test_the_page_shows_the_examples_as_they_are(version: str) -> None:
    example = (CLIENTS / version / "Example.ahk").read_text(encoding="utf-8-sig")
    assert shown(KINDS[version])[0] == example


def test_the_page_does_what_it_says(ahk: Script, tmp_path: Path) -> None:
    assert shown("sh")[0] == "make run\n"
    unlocked, refused, offline = shown("")
    desk, port = Desk(tmp_path), free_port()
    with desk.make_run(port) as server:
        server.wait_until_answers("/readyz", 120)
        program = Program(ahk, tmp_path / "program", desk, port)
        assert program.says(program.key) == unlocked
        assert program.says() == unlocked
        program.forget_key()
        assert program.says("NO-SUCH-KEY-12345678") == refused
        assert program.says(program.key) == unlocked
        server.interrupt()
        assert program.says() == offline
    assert all(ahk.wine.log(name) for name in LOGS)
    assert program.key not in "".join(line for name in LOGS for line in ahk.wine.log(name))
