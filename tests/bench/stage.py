"""The servers of a run: one Postgres, and on it a node, the bare route and the naive check as own processes."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from api.signing import generate
from tests.bench.calls import GOOD, Vendor, new_key
from tests.bench.ledger import fill
from tests.bench.load import drive
from tests.support.postgres import PostgresServer, free_port
from tests.support.processes import ROOT, ServerProcess, until

PATH = "/v1/validate"
_WORKERS = "2"


class Stage:
    """One Postgres with one filled database, and what is started beside it. Use it with `with`."""

    def __init__(self, licenses: int, folder: Path) -> None:
        self._folder = folder
        self._ends = contextlib.ExitStack()
        self._secrets = {
            "ADMIN_TOKEN": secrets.token_urlsafe(32),
            "SIGNING_KEY": generate().pem(),
        }
        self.vendor = Vendor([new_key() for _ in range(licenses)])
        self.postgres = self._ends.enter_context(PostgresServer())
        self.url = self.postgres.create_database("bench")
        fill(self.url, self.vendor)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def node(self, url: str | None = None) -> ServerProcess:
        """A node as a vendor starts it, `cd api && python app.py`, on the database or on another way to it."""
        return ServerProcess.python("app.py", env=self._node_env(url or self.url), cwd=ROOT / "api")

    def other(self, name: str) -> ServerProcess:
        """The server of `tests.bench.naive` by this name, on the same options."""
        env = {"DATABASE_URL": self.url, "WEB_CONCURRENCY": _WORKERS}
        server = ServerProcess.python("-m", "tests.bench.naive", name, env=env)
        until(lambda: _accepts(server.port), f"{name} listens")
        return server

    @contextlib.contextmanager
    def network(self, delay_ms: float) -> Iterator[str]:
        """The database's URL by way of a proxy that holds every byte back for so long in each direction."""
        port = free_port()
        command = ("-m", "tests.bench.proxy", str(port), str(self.postgres.port), str(delay_ms))
        with ServerProcess.python(*command, env={}):
            until(lambda: _accepts(port), "the proxy listens")
            yield self.url.replace(f":{self.postgres.port}/", f":{port}/")

    def first_verdict(self, node: ServerProcess) -> None:
        """Asks until the node has given one good verdict."""
        until(lambda: self._is_good(node), "a first verdict")

    def postgres_process(self) -> psutil.Process:
        """Postgres's first process."""
        return psutil.Process(int((self.postgres.data / "postmaster.pid").read_text().split()[0]))

    def _is_good(self, node: ServerProcess) -> bool:
        with contextlib.suppress(OSError):
            return bool(drive(node.port, 1, self.vendor.calls(PATH, 1), 1, GOOD).latencies)
        return False

    def _node_env(self, url: str) -> dict[str, str]:
        return {
            "DATABASE_URL": url,
            "DATA_DIR": str(self._folder / secrets.token_hex(4)),
            "API_KEY": self.vendor.api_key,
            "SHARED_SECRET": self.vendor.shared_secret,
            "NODE_ID": "bench-1",
            "WEB_CONCURRENCY": _WORKERS,
            **self._secrets,
        }


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
