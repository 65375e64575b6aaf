"""`small_app` as a server of its own: its processes, and clients that ask while a test does its worst."""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator

import psutil

from tests.support.processes import ServerProcess, running, until

APP = ("-m", "tests.support.small_app")


@contextlib.contextmanager
def small_app(env: dict[str, str] | None = None, **options: float) -> Iterator[ServerProcess]:
    with running(*APP, env={"OPTIONS": json.dumps(options), **(env or {})}) as server:
        until(lambda: len(workers(server)) == options.get("workers", 2), "all workers")
        yield server


def parent(process: psutil.Process) -> int | None:
    """Its parent's id; None if it has just died."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.ppid())
    return None


def workers(server: ServerProcess) -> set[psutil.Process]:
    """The children of Granian's process."""
    return {each for each in server.descendants() if parent(each) not in (server.process.pid, None)}


def granian(server: ServerProcess) -> int:
    """The id of the process that has the workers."""
    parents = until(lambda: {parent(worker) for worker in workers(server)} - {None}, "a worker")
    return int(parents.pop() or 0)


def ask(port: int, path: str, timeout: float = 30.0) -> tuple[int | str, dict[str, object], float]:
    """One GET on a connection of its own: status (or what went wrong), the JSON answered, seconds taken."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        status: int | str = answer.status
    except (OSError, http.client.HTTPException) as error:
        status, body = type(error).__name__, b"{}"
    finally:
        connection.close()
    return status, json.loads(body), time.monotonic() - began


def in_flight(server: ServerProcess) -> int:
    """How many connections the workers hold."""
    held = itertools.chain.from_iterable(worker.net_connections("tcp") for worker in workers(server))
    return sum(each.status == psutil.CONN_ESTABLISHED for each in held)


class Probe:
    """Asks all the time, each time anew, while a test does its worst; keeps what it was told and how long it took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.statuses: collections.Counter[int | str] = collections.Counter()
        self.longest = 0.0

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)

    def _loop(self) -> None:
        while not self._end.is_set():
            status, _, seconds = ask(self._port, "/pid")
            self.statuses[status] += 1
            self.longest = max(self.longest, seconds)


class Looping:
    """64 clients that ask again and again on connections they keep, each until it is refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.counts: collections.Counter[str] = collections.Counter()
        self._threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(64)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _loop(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while True:
            try:
                connection.connect() if connection.sock is None else None
            except ConnectionRefusedError:
                self.counts["refused"] += 1
                return
            try:
                connection.request("GET", "/pid")
                answer = connection.getresponse()
                answer.read()
                self.counts[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.counts[f"cut: {error!r}"] += 1
                connection.close()
