"""What the files of the hosts say, read as those hosts read them: build and start commands, and settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.processes import ROOT

Json = dict[str, Any]


class Instruction(NamedTuple):
    """A line of a Dockerfile: `word` in capitals, and what follows it with continued lines joined."""

    word: str
    rest: str


def procfile() -> str:
    """The command of the Procfile's `web`."""
    [line] = (ROOT / "Procfile").read_text().splitlines()
    return line.removeprefix("web: ")


def python_version() -> str:
    """What runtime.txt asks for, as `3.11.15`."""
    return (ROOT / "runtime.txt").read_text().strip().removeprefix("python-")


def railway() -> Json:
    return tomllib.loads((ROOT / "railway.toml").read_text())


def fly() -> Json:
    return tomllib.loads((ROOT / "fly.toml").read_text())


def render() -> Json:
    """The one service of render.yaml."""
    [service] = yaml.safe_load((ROOT / "render.yaml").read_text())["services"]
    return dict(service)


def compose() -> Json:
    """compose.yaml, its merge keys merged, its variables as they are written."""
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def compose_environment(service: str, dotenv: Mapping[str, str]) -> dict[str, str]:
    """The environment that compose gives `service` where its variables are those of `dotenv`. Raises KeyError."""
    given = compose()["services"][service]["environment"]
    return {name: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: dotenv[found[1]], text) for name, text in given.items()}


def dockerfile() -> list[list[Instruction]]:
    """The stages of the Dockerfile, each beginning with its FROM."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[Instruction]] = []
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append(Instruction(word, rest.strip()))
    return stages


def image_command() -> list[str]:
    """The words of the image's CMD."""
    [command] = [one.rest for one in dockerfile()[-1] if one.word == "CMD"]
    return list(yaml.safe_load(command))  # JSON, which is YAML as well


def image_healthcheck() -> list[str]:
    """The words of the image's health check."""
    [check] = [one.rest for one in dockerfile()[-1] if one.word == "HEALTHCHECK"]
    return list(yaml.safe_load(check.partition(" CMD ")[2]))


def dotenv(text: str) -> dict[str, str]:
    """The settings of a `.env`."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def read(name: str) -> str:
    return Path(ROOT / name).read_text()
