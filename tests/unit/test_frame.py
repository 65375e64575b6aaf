"""The project's frame says one thing everywhere: the Python version, what is pinned, what is installed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_PLATFORMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _line(name: str) -> str:
    return (ROOT / name).read_text().strip()


def _entries(name: str) -> list[str]:
    """What a file of requirements names, an entry each, its hashes with it."""
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line and not line.lstrip().startswith("#")]


def _requirements(name: str) -> list[Requirement]:
    return [Requirement(entry.partition(" --hash=")[0]) for entry in _entries(name) if not entry.startswith("-e ")]


def _imported_names(package: str) -> Iterator[str]:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.module.partition(".")[0]


def test_python_version_runtime_and_pyproject_agree() -> None:
    line, runtime = _line(".python-version"), _line("runtime.txt")
    assert re.fullmatch(rf"python-{re.escape(line)}\.\d+", runtime)
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(runtime.removeprefix("python-"))
    assert PYPROJECT["project"]["requires-python"] == f">={line}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == line
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{line.replace('.', '')}"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_what_is_installed(name: str) -> None:
    wanted = [
        requirement for requirement in _requirements(name) if not requirement.marker or requirement.marker.evaluate()
    ]
    assert wanted
    assert {r.name: str(r.specifier) for r in wanted} == {r.name: f"=={metadata.version(r.name)}" for r in wanted}


def test_every_requirement_of_a_node_has_hashes_and_nothing_says_where_to_get_it() -> None:
    for entry in _entries("requirements.txt"):
        requirement, *hashes = entry.split(" --hash=")
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ *(;|$)", requirement), entry
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes), requirement
    for name in ("requirements.in", "requirements.txt", "requirements-dev.txt"):
        assert not re.search(r"https?:|index-url|find-links", (ROOT / name).read_text()), name


def test_what_is_asked_for_is_what_the_hashes_are_of() -> None:
    asked, hashed = (
        {canonicalize_name(one.name): str(one.specifier) for one in _requirements(name)}
        for name in ("requirements.in", "requirements.txt")
    )
    assert asked.items() <= hashed.items()
    assert all(specifier.startswith("==") for specifier in hashed.values())


def test_all_that_requirements_bring_along_is_there_for_every_platform() -> None:
    named = {canonicalize_name(one.name) for one in _requirements("requirements.txt")}
    platforms = [{"sys_platform": name, "platform_system": system} for name, system in _PLATFORMS.items()]
    for one in _requirements("requirements.txt"):
        if one.marker and not one.marker.evaluate():
            continue
        for brought in map(Requirement, metadata.requires(one.name) or ()):
            if brought.marker is None or any(brought.marker.evaluate({"extra": "", **each}) for each in platforms):
                assert canonicalize_name(brought.name) in named, f"{one.name} brings {brought.name}"


def test_the_tools_are_installed_without_hashes() -> None:
    assert not [entry for entry in _entries("requirements-dev.txt") if "--hash" in entry or entry.startswith("-r")]


@pytest.mark.parametrize("package", ["api", "failover", "migrations"])
def test_whatever_a_node_imports_is_pinned_for_it(package: str) -> None:
    pinned = {canonicalize_name(requirement.name) for requirement in _requirements("requirements.txt")}
    ours = {"api", "failover", *sys.stdlib_module_names}
    distributions = metadata.packages_distributions()
    imported = set(_imported_names(package)) - ours
    missing = {n for n in imported if not pinned & {canonicalize_name(d) for d in distributions.get(n, [])}}
    assert missing == set()


def test_the_procfile_starts_what_the_contract_says() -> None:
    assert _line("Procfile") == "web: cd api && python app.py"


def test_pre_commit_runs_what_make_check_runs() -> None:
    recipe = re.search(r"^check: setup\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    commands = recipe[1].replace("\\\n", " ").replace('"$(PY)"', "PYTHON").replace('"$(abspath $(VENV))/bin/', "BIN/")
    checked = [" ".join(line.strip().lstrip("@").replace('"', "").split()) for line in commands.splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].replace(".venv/bin/python", "PYTHON").replace(".venv/bin/", "BIN/") for hook in hooks]
    assert entries == checked
