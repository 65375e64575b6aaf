"""The page that takes a script's author from nothing to a protected script, done as it is written, under Wine.

The server has a port of its own; what it printed is pasted where the page says, and a second script sits before the
screen: it enters the key, reads what the program says and presses the button.
"""

from __future__ import annotations

import json
import re
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


GUIDE = CLIENTS / "v1" / "SOLUCAO_COM_REDUNDANCIA.ahk"


def printed_for(version: str, output: str) -> str:
    """The lines that `make run` prints for one AutoHotkey version."""
    heading = {"v1": "For AutoHotkey 1.1", "v2": "For AutoHotkey v2"}[version]
    lines = output[output.index(heading) :].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("g_"))
    end = next(number for number, line in enumerate(lines) if line.startswith(")"))
    return "\n".join(lines[begin : end + 1])


class Program:
    """A script in a folder of its own, with one paste: what `make run` printed, below the line that says where."""

    def __init__(self, ahk: Script, folder: Path, script: str, pasted: str, *, title: str, here: str) -> None:
        folder.mkdir()
        self._ahk, self._folder, self._title = ahk, folder, title
        before, said, after = script.partition(f"; {here}")
        assert said
        rest, _, below = after.partition("\n")
        text = f"{before}{said}{rest}\n{pasted}\n{below}"
        (folder / "Program.ahk").write_text(text, encoding="utf-8-sig")
        shutil.copy(CLIENTS / ahk.version / "License.ahk", folder)

    def says(self, *key: str) -> str:
        """What the program's last window says; `key` is entered where it asks."""
        heard = self._folder / "heard.txt"
        heard.unlink(missing_ok=True)
        wine = self._ahk.wine
        program = wine.start(self._ahk.version, self._folder / "Program.ahk")
        try:
            wine.finish(wine.start("v2", ROBOT, self._title, windows_path(heard), *key))
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


def test_the_guides_script_has_the_guides_array_of_servers() -> None:
    script = GUIDE.read_text(encoding="utf-8-sig")
    assert re.findall(r'^g_LicenseAPI_Servers(?:\[\d\])? := .+?(?=\s*(?:;|$))', script, re.MULTILINE) == [
        "g_LicenseAPI_Servers := []", 'g_LicenseAPI_Servers[1] := "https://api1.railway.app"',
        'g_LicenseAPI_Servers[2] := "https://api2.onrender.com"', 'g_LicenseAPI_Servers[3] := "https://api3.fly.dev"',
    ]  # fmt: skip


def _demo_key(desk: Desk) -> str:
    """As the page has its reader look it up."""
    done = desk.keep(shown("sh")[1])
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["key"])


def test_the_page_does_what_it_says(ahk: Script, tmp_path: Path) -> None:
    assert shown("sh")[0] == "make run\n"
    unlocked, refused, offline = shown("")
    desk, port = Desk(tmp_path), free_port()
    with desk.make_run(port) as server:
        server.wait_until_answers("/readyz", 120)
        pasted, key = printed_for(ahk.version, server.output()), _demo_key(desk)
        script = shown(KINDS[ahk.version])[0]
        program = Program(ahk, tmp_path / "program", script, pasted, title="My program", here="PASTE HERE")
        assert program.says(key) == unlocked
        assert program.says() == unlocked
        program.forget_key()
        assert program.says("NO-SUCH-KEY-12345678") == refused
        assert program.says(key) == unlocked
        if ahk.version == "v1":
            guide = GUIDE.read_text(encoding="utf-8-sig")
            solucao = Program(ahk, tmp_path / "guide", guide, pasted, title="Meu programa", here="COLE AQUI")
            assert solucao.says(key) == "Liberado: VALID\nA licença é válida.\n"
        server.interrupt()
        assert program.says() == offline
    assert all(ahk.wine.log(name) for name in LOGS)
    assert key not in "".join(line for name in LOGS for line in ahk.wine.log(name))
