"""A trouble that the documentation does not list is one that no operator can look up."""

from __future__ import annotations

import re
from pathlib import Path

from api.node.troubles import Trouble

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def documented() -> set[str]:
    """The first cells of the table of troubles, their facts in braces again."""
    text = OPERATIONS.read_text(encoding="utf-8").partition("\n## Troubles\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| `([^`]+)` \| \S.* \|$", text, flags=re.M)
    return {re.sub(r"<(\w+)>", r"{\1}", cell) for cell in cells}


def test_every_trouble_has_a_row_that_says_what_to_do() -> None:
    assert {trouble.value for trouble in Trouble} == documented()
