"""What tests on real processes share: a Windows for the AutoHotkey clients, one for each process, and clusters."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Site
from tests.support.postgres import PostgresServer
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A Postgres of the test's own, to be stopped and frozen."""
    with PostgresServer(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def site(empty_postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    """A cluster without nodes on the run's Postgres."""
    with contextlib.closing(Site(empty_postgres_url, tmp_path)) as site:
        yield site


@pytest.fixture
def own_site(server: PostgresServer, tmp_path: Path) -> Iterator[Site]:
    """A cluster without nodes on the test's own Postgres."""
    with contextlib.closing(Site(server.create_database("shared"), tmp_path)) as site:
        yield site
