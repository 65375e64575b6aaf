"""A Postgres server of a module's own, for tests that stop and freeze it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that tests may stop and freeze."""
    with PostgresServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """An empty database on it; whatever the test did to the server has passed when it goes."""
    name = f"ledger_{uuid.uuid4().hex[:8]}"
    yield server.create_database(name)
    server.thaw()
    server.start()
    server.drop_database(name)
