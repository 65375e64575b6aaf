"""The servers of a run: one Postgres, and on it a node, the bare route and the naive check as own processes."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from api.signing import generate
from tests.bench.calls import GOOD, Vendor, new_key
from tests.bench.ledger import fill
from tests.bench.load import drive
from tests.bench.machine import Tree
from tests.support.cluster import WORKERS_AGREE_S
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

    def node(self, url: str | None = None, disk: Path | None = None, **more: str) -> ServerProcess:
        """A node as a vendor starts it, `cd api && python app.py`, on the database or on another way to it.

        `disk`: its folder, empty where none is given; `more`: further settings.
        """
        env = self._node_env(url or self.url, disk or self.new_disk()) | more
        return ServerProcess.python("app.py", env=env, cwd=ROOT / "api")

    def new_disk(self) -> Path:
        """A folder that no node has had."""
        return self._folder / secrets.token_hex(4)

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
        until(lambda: self.is_answered(node), "a first verdict")

    def first_verdict_of_all(self, node: ServerProcess) -> None:
        """The same, and until no worker says any more that it is starting: each learns its part by itself."""
        until(lambda: node.output().count('"serving"') >= int(_WORKERS), "all workers")
        self.first_verdict(node)
        agreed = time.monotonic() + WORKERS_AGREE_S
        until(lambda: self.is_answered(node) and time.monotonic() > agreed, "a verdict of all workers")

    def is_answered(self, node: ServerProcess, good: Sequence[bytes] = GOOD) -> bool:
        """Sends one check: whether its answer has all of `good` in it."""
        with contextlib.suppress(OSError):
            return bool(drive(node.port, 1, self.vendor.calls(PATH, 1), 1, good).latencies)
        return False

    def postgres_cpu_s(self) -> float:
        """CPU seconds of Postgres and all its processes; 0 while it is stopped."""
        if not self.postgres.running:
            return 0.0
        first = int((self.postgres.data / "postmaster.pid").read_text().split()[0])
        return Tree(psutil.Process(first)).cpu_s()

    def _node_env(self, url: str, disk: Path) -> dict[str, str]:
        return {
            "DATABASE_URL": url,
            "DATA_DIR": str(disk),
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
