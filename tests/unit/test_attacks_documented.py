"""An attack of which the documentation names no test, or one that is not there, is not refused by anything."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECURITY = ROOT / "docs" / "security.md"
#: As many classes as were tried.
_CLASSES = 99


def rows() -> list[tuple[str, list[str]]]:
    """Each attack, with the tests that its row names."""
    table = SECURITY.read_text(encoding="utf-8").partition("|---|---|---|\n")[2]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return [(f"{group}: {attack}", re.findall(r"`([^`]+)`", tests)) for group, attack, tests in cells]


@cache
def named_in(path: str) -> frozenset[str]:
    """The names of the tests in a file; none where there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    functions = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.FunctionDef)]
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_every_class_has_a_row_of_its_own() -> None:
    attacks = [attack for attack, _ in rows()]
    assert len(set(attacks)) == len(attacks)
    assert len(attacks) >= _CLASSES


@pytest.mark.parametrize(("attack", "tests"), rows(), ids=[attack for attack, _ in rows()])
def test_the_tests_of_a_row_are_there(attack: str, tests: list[str]) -> None:
    assert tests, "no test refuses it"
    missing = [test for test in tests if test.partition("::")[2] not in named_in(test.partition("::")[0])]
    assert missing == []
