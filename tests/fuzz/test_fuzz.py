"""A short run of what `make fuzz` does, at a node with its ledger and at one that has lost it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.http import fuzz_http

_CASES, _CONNECTIONS = 200, 1_000


@pytest.mark.parametrize("isolated", [False, True], ids=["ledger", "isolated"])
def test_generated_calls_find_nothing(
    isolated: bool, tmp_path: Path, seed: int, postgres_server: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    status = fuzz(tmp_path, _CASES, seed, isolated=isolated)
    assert status == 0, capfd.readouterr().out


def test_connections_with_garbled_requests_find_nothing(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    status = fuzz_http(tmp_path, _CONNECTIONS, seed)
    assert status == 0, capsys.readouterr().out
