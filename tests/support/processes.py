"""Server processes for tests: started on a free port with their own environment, watched, and always ended.

Conditions are polled up to a generous deadline; nothing here trusts a fixed pause.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import psutil
import requests

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0
_TERM = signal.SIGTERM
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "PYTHONDONTWRITEBYTECODE")

T = TypeVar("T")


def until(condition: Callable[[], T], why: str, deadline: float = DEADLINE_S) -> T:
    """The first true value of `condition`, asked again and again; AssertionError with `why` after the deadline (s)."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {why}")
        time.sleep(0.02)
    return value


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_running(process: psutil.Process) -> bool:
    """Whether it exists and is more than a zombie that nobody has reaped yet."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def freeze(process: psutil.Process) -> None:
    """SIGSTOP, and wait until each of its threads stands still: one that runs on may still accept a connection."""
    process.suspend()
    threads = Path(f"/proc/{process.pid}/task")

    def stands_still() -> bool:
        if not threads.exists():
            return bool(process.status() == psutil.STATUS_STOPPED)
        return all(" (stopped)" in (thread / "status").read_text() for thread in threads.iterdir())

    until(stands_still, "every thread stopped")


class ServerProcess:
    """A command that serves HTTP on `port`, started at once. Use it with `with`: its whole tree ends there."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, port: int | None = None, cwd: Path = ROOT
    ) -> None:
        """`env` is all it gets, besides PORT, HOST (loopback) and a few harmless names such as PATH.

        A developer's own `.env` is not for it.
        """
        self.port = port if port is not None else free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill_tree)
        harmless = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own = {"PORT": str(self.port), "HOST": "127.0.0.1", "PYTHONUNBUFFERED": "1", "FLASK_SKIP_DOTENV": "1"}
        self._popen = subprocess.Popen(
            command, cwd=cwd, env={**harmless, **own, **env}, stdout=self._output, stderr=subprocess.STDOUT
        )
        self.process = psutil.Process(self._popen.pid)
        self._seen: set[psutil.Process] = {self.process}

    @classmethod
    def python(cls, *arguments: str, env: Mapping[str, str], port: int | None = None, cwd: Path = ROOT) -> Self:
        """This interpreter with these arguments, for instance `"app.py"` or `"-m", "a.module"`."""
        return cls([sys.executable, *arguments], env, port=port, cwd=cwd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_tree()

    def output(self) -> str:
        """All that it has written so far, stdout and stderr together."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def get(self, path: str, timeout: float = 10.0) -> requests.Response:
        """One request on a connection of its own."""
        return requests.get(self.url + path, timeout=timeout)

    def answers(self, path: str = "/livez") -> bool:
        """Whether a request is answered 200 now, within two seconds."""
        try:
            return self.get(path, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def wait_until_answers(self, path: str = "/livez", deadline: float = DEADLINE_S) -> Self:
        """Until the path is answered 200; what the process has written is in the error if it is not."""

        def up() -> bool:
            assert self._popen.poll() is None, f"it ended with {self._popen.returncode}:\n{self.output()}"
            return self.answers(path)

        try:
            until(up, f"an answer to {path}", deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}") from None
        return self

    def descendants(self) -> list[psutil.Process]:
        """Every process below this one that runs now, parents before children."""
        try:
            found = [each for each in self.process.children(recursive=True) if is_running(each)]
        except psutil.NoSuchProcess:
            found = []
        self._seen.update(found)
        return found

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the top process only."""
        self._popen.send_signal(number)

    def signal_all(self, number: int = _TERM) -> None:
        """Send a signal to every process of it, children first, as systemd does."""
        for process in [*reversed(self.descendants()), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def wait(self, deadline: float = DEADLINE_S) -> int:
        """Its exit status, as soon as it ends."""
        try:
            return self._popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline:g} s:\n{self.output()}") from None

    def stop(self, deadline: float = DEADLINE_S) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def interrupt(self, deadline: float = DEADLINE_S) -> int:
        """Ctrl-C in its terminal, which means its whole process group, and its exit status."""
        group = os.getpgid(self.process.pid)
        for process in [*self.descendants(), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(process.pid) == group:
                    process.send_signal(signal.SIGINT)
        return self.wait(deadline)

    def kill_tree(self) -> None:
        """SIGKILL it and all that it has started. May be called twice."""
        if self._output.closed:
            return
        self.descendants()
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()
        self._output.close()


@contextlib.contextmanager
def running(*arguments: str, env: Mapping[str, str], path: str = "/livez", cwd: Path = ROOT) -> Iterator[ServerProcess]:
    """A Python server process that answers `path`, ended afterwards."""
    with ServerProcess.python(*arguments, env=env, cwd=cwd) as server:
        yield server.wait_until_answers(path)
