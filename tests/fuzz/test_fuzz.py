"""A short run of what `make fuzz` does, at a node with its ledger and at one that has lost it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz

_CASES = 200


@pytest.mark.parametrize("isolated", [False, True], ids=["ledger", "isolated"])
def test_generated_calls_find_nothing(
    isolated: bool, tmp_path: Path, seed: int, postgres_server: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    status = fuzz(tmp_path, _CASES, seed, isolated=isolated)
    assert status == 0, capfd.readouterr().out
