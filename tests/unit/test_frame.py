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
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _line(name: str) -> str:
    return (ROOT / name).read_text().strip()


def _requirements(name: str) -> list[Requirement]:
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r ", "-e "))]


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
