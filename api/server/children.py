"""One child of the master: forked, reaped, started again with back-off.
The master has a single thread, so a plain fork is safe and all that was imported is shared.

Service managers, containers and terminals signal every process of a server at once. A child that heeded that would
break off what it is answering, so in children those signals stay blocked: the master decides, and sends `LEAVE`.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from .options import LEAVE

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""A child that lived this long is started again at once."""
LONGEST_DELAY_S = 5.0
_PR_SET_PDEATHSIG = 1
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What service managers, terminals and people end a server with."""
_OURS = (*ENDS, signal.SIGCHLD)


def restart_delay(failures: int) -> float:
    """How long to wait, in seconds, after so many early deaths in a row: 0, 0.1, 0.2, 0.4 ... 5."""
    return 0.0 if failures < 1 else min(0.1 * 2.0 ** (min(failures, 10) - 1), LONGEST_DELAY_S)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux), and end it now if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def reap_orphans(children: Collection[int]) -> None:
    """Reaps every ended process that is ours but none of these `children`, which are reaped by name.

    As PID 1 of a container this process inherits what its children leave behind, and nobody else would reap it.
    """
    if not hasattr(os, "waitid"):  # macOS, which runs no containers of its own
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in children:
                return
            os.waitpid(ended.si_pid, 0)


class Child:
    """A named child process. `pid` is None while it is down; `due` is the time (monotonic) of its next start."""

    def __init__(self, name: str, run: Callable[[], int | None]) -> None:
        """`run` is called in the child; its result is the exit status."""
        self.name = name
        self.pid: int | None = None
        self.due = 0.0
        self.kill_at: float | None = None
        self._run = run
        self._started = 0.0
        self._failures = 0

    def start(self, now: float) -> None:
        """Fork. Signals are held back meanwhile, so that none is lost in a handler that was the master's."""
        master = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
        pid = os.fork()
        if pid == 0:
            _be_child(master, self._run)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
        self.pid, self._started, self.kill_at = pid, now, None
        log.info("process started", extra={"child_name": self.name, "child_pid": pid})

    def reap(self, now: float) -> bool:
        """True if the child has just been found dead; its next start is then set."""
        if self.pid is None:
            return False
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        level = logging.INFO if self.kill_at is not None else logging.WARNING
        self.pid = self.kill_at = None
        self._failures = 0 if now - self._started >= STEADY_S else self._failures + 1
        self.due = now + restart_delay(self._failures - 1)
        code = os.waitstatus_to_exitcode(status)
        log.log(level, "process ended", extra={"child_name": self.name, "child_pid": pid, "status": code})
        return True

    def signal(self, number: int) -> None:
        """Send a signal, if the child is up. It is ours and not yet reaped, so the id cannot be another's."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def end_by(self, deadline: float, number: int = LEAVE) -> None:
        """Ask the child to end, by this signal; `press` kills it once the deadline (monotonic) has passed."""
        self.signal(number)
        self.kill_at = deadline

    def press(self, now: float) -> None:
        """Kill the child if it was asked to end and has not."""
        if self.kill_at is not None and now >= self.kill_at:
            log.warning(
                "process did not end in time, killing it", extra={"child_name": self.name, "child_pid": self.pid}
            )
            self.signal(signal.SIGKILL)
            self.kill_at = None


def _be_child(master: int, run: Callable[[], int | None]) -> NoReturn:
    """Become the child: the default signals, a group of one's own, `run`, and never back into the master's code."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _OURS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # not the others
        os.setpgrp()
        die_with(master)
        status = run() or 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        log.exception("process failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
