"""A Windows for the AutoHotkey clients, one for all tests of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wine import VERSIONS, Script, Wine, WineUnavailable

_SKIPPED = "WINE IS MISSING"


@pytest.fixture(scope="session")
def wine() -> Iterator[Wine]:
    """The test is skipped, loudly, where there is no Wine; in CI that is a failure."""
    try:
        made = Wine()
    except WineUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{_SKIPPED}: {error}")
    with made:
        yield made


@pytest.fixture(params=VERSIONS)
def ahk(request: pytest.FixtureRequest, wine: Wine, tmp_path: Path) -> Script:
    """The client of one AutoHotkey version; the test runs once for each. Nothing is logged yet."""
    wine.forget_logs()
    return Script(wine, request.param, tmp_path)
