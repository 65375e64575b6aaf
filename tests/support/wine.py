"""Wine for tests of the AutoHotkey clients: a prefix of one's own, and in it what the package `ahk-binary` has."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT

Json = dict[str, Any]

VERSIONS = ("v1", "v2")
LOGS = ("license_server_used.txt", "license_server_failover.txt", "license_offline_success.txt")

_PROGRAMS = {"v1": "AutoHotkey.exe", "v2": "AutoHotkeyV2.exe"}
_SCRIPTS = ROOT / "tests" / "support"
_STAY = _SCRIPTS / "wine_stay.ahk"
_DEADLINE_S = 180
_GUID = r"HKLM\SOFTWARE\Microsoft\Cryptography"


class WineUnavailable(Exception):
    """There is no Wine here, or no AutoHotkey. The message says what to install."""


class Wine:
    """A Windows of one's own in a folder of its own. Use it with `with`: making it takes about ten seconds."""

    def __init__(self) -> None:
        """Raises `WineUnavailable`."""
        if shutil.which("wine") is None or shutil.which("wineserver") is None:
            raise WineUnavailable("install Debian's wine, wine64 and libgnutls30")
        try:
            importlib.metadata.version("ahk-binary")
        except importlib.metadata.PackageNotFoundError:
            raise WineUnavailable("install requirements-dev.txt (ahk-binary)") from None
        self._folder = tempfile.TemporaryDirectory(prefix="wine-", ignore_cleanup_errors=True)
        runtime = Path(self._folder.name) / "runtime"
        runtime.mkdir(mode=0o700)
        self.prefix = Path(self._folder.name) / "prefix"
        self._env = {name: text for name, text in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
        self._env |= {"WINEPREFIX": str(self.prefix), "WINEARCH": "win64", "WINEDEBUG": "-all"}
        self._env |= {"WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=d", "XDG_RUNTIME_DIR": str(runtime)}
        # What language Windows speaks follows from it.
        self._env |= {"LC_ALL": "C.UTF-8"}
        self._staying: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Wine:
        try:
            self._run("wineboot", "-i")
            self._run("wine", "reg", "add", r"HKCU\Software\Wine\Drivers", "/v", "Graphics", "/d", "null", "/f")
            # Only what is started from now on takes the driver that needs no screen.
            self._run("wineserver", "-k", check=False)
            self._run("wineserver", "-w")
            self._stay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._run("wineserver", "-k", check=False)
        if self._staying is not None:
            self._staying.wait(_DEADLINE_S)
        self._folder.cleanup()

    def _stay(self) -> None:
        """Has a script run until the end, so that the desktop stays.

        It would go with the last script and come with the next, and one that waits too long for it, or meets it on its
        way out, makes no window: AutoHotkey ends with status 2 then, without a word.
        """
        ready, command = Path(self._folder.name) / "ready", self._command("v2", _STAY)
        give_up = time.monotonic() + _DEADLINE_S
        while not ready.exists():
            assert time.monotonic() < give_up, "no desktop came up"
            nowhere = subprocess.DEVNULL
            self._staying = subprocess.Popen(
                [*command, windows_path(ready)], env=self._env, stdout=nowhere, stderr=nowhere
            )
            while self._staying.poll() is None and not ready.exists():
                time.sleep(0.05)

    @functools.cached_property
    def temp(self) -> Path:
        """%TEMP%."""
        path = self._run("wine", "cmd", "/c", "echo %TEMP%").strip()
        return Path(self._run("winepath", "-u", path).strip())

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self, version: str, script: Path, *arguments: str, program: Path | None = None) -> subprocess.Popen[str]:
        """A script, just started; what it says on its standard output and error is text.

        `program`: a copy of AutoHotkey to run it with.
        """
        command = [*self._command(version, script, program), *arguments]
        return subprocess.Popen(command, env=self._env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    @staticmethod
    def _command(version: str, script: Path, program: Path | None = None) -> list[str]:
        return ["wine", str(program or program_of(version)), "/ErrorStdOut", windows_path(script)]

    def finish(self, running: subprocess.Popen[str]) -> str:
        """What it said. AssertionError for one that fails or does not end."""
        try:
            said, _ = running.communicate(timeout=_DEADLINE_S)
        except subprocess.TimeoutExpired:
            running.kill()
            said, _ = running.communicate()
            raise AssertionError(f"the script did not end:\n{said}") from None
        assert running.returncode == 0, f"exit status {running.returncode}:\n{said}"
        return said

    def _run(self, *command: str, check: bool = True) -> str:
        """What it said. A file takes it: what a command leaves running may hold on to it for ever."""
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(command, env=self._env, stdout=said, stderr=subprocess.STDOUT, timeout=_DEADLINE_S)
            said.seek(0)
            text = said.read()
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{text}"
        return text

    # -- what is in it ------------------------------------------------------------------------------------------------

    def log(self, name: str) -> list[str]:
        path = self.temp / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def forget_logs(self) -> None:
        for name in LOGS:
            (self.temp / name).unlink(missing_ok=True)

    @property
    def machine_guid(self) -> str:
        return self._run("wine", "reg", "query", _GUID, "/v", "MachineGuid").split()[-1]

    @machine_guid.setter
    def machine_guid(self, guid: str) -> None:
        self._run("wine", "reg", "add", _GUID, "/v", "MachineGuid", "/d", guid, "/f")

    def trust(self, certificate: Path) -> None:
        """Makes an authority trusted, from its certificate in DER."""
        self.finish(self.start("v2", _SCRIPTS / "wine_trust.ahk", windows_path(certificate)))


def program_of(version: str) -> Path:
    """Where pip has put AutoHotkey."""
    named = _PROGRAMS[version]
    found = (file for file in importlib.metadata.files("ahk-binary") or () if file.name == named)
    return Path(str(next(found).locate())).resolve()


def windows_path(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


class Script:
    """The driver of one AutoHotkey version: steps in, answers out. The steps are in the drivers beside this file."""

    def __init__(self, wine: Wine, version: str, folder: Path) -> None:
        self.wine, self.version = wine, version
        #: Which of the client's files it includes.
        self.build = "License.ahk"
        #: A copy of AutoHotkey to run it with, in a folder of its own.
        self.program: Path | None = None
        self._folder = folder
        self._runs = 0

    def run(self, steps: Sequence[Mapping[str, Any]]) -> list[Json]:
        """One process that carries out the steps one after another; its answers."""
        return self.begin(steps).answers()

    def begin(self, steps: Sequence[Mapping[str, Any]]) -> Running:
        self._runs += 1
        given, answered = (self._folder / f"{self.version}-{self._runs}.{kind}" for kind in ("steps", "answers"))
        # ASCII, so that no idea of an encoding matters.
        given.write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="ascii")
        driver = self._driver()
        process = self.wine.start(
            self.version, driver, windows_path(given), windows_path(answered), program=self.program
        )
        return Running(self.wine, process, answered, len(steps))

    def _driver(self) -> Path:
        driver = _SCRIPTS / f"wine_driver_{self.version}.ahk"
        if self.build == "License.ahk":
            return driver
        text = driver.read_text(encoding="utf-8-sig")
        usual = next(line for line in text.splitlines() if line.startswith("#Include"))
        build = f"#Include {windows_path(ROOT / 'clients' / 'ahk' / self.version / self.build)}"
        made = self._folder / driver.name
        made.write_text(text.replace(usual, build), encoding="utf-8-sig")
        return made


class Running:
    """A driver at work."""

    def __init__(self, wine: Wine, process: subprocess.Popen[str], answered: Path, count: int) -> None:
        self._wine, self._process, self._answered, self._count = wine, process, answered, count

    def answers(self) -> list[Json]:
        """All of them, when it is done. AssertionError with its own words if it failed."""
        try:
            self._wine.finish(self._process)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._read()[-3:]}") from None
        answers = self._read()
        assert len(answers) == self._count, answers
        return answers

    def _read(self) -> list[Json]:
        if not self._answered.exists():
            return []
        return [json.loads(line) for line in self._answered.read_text(encoding="utf-8").splitlines()]
