"""What a supervisor waits for before it starts: to be its node's only one, the schema, and a disk that takes files."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from api import logs
from api.config.settings import Settings
from api.ledger import migrate
from api.ledger.database import Database
from api.ledger.errors import LedgerError, LedgerUnavailable
from api.node.clock import Clock
from api.node.published import Published
from api.node.troubles import Trouble
from api.supervisor.copying import Copy
from api.supervisor.pace import Pace
from api.supervisor.queueing import Queueing
from failover.errors import QueueBusy

_log = logs.get("supervision")

_LOCK_NAME = "supervisor.lock"
_LOCK_RETRY_S, _DISK_RETRY_S = 0.5, 1.0
_SCHEMA_LOOK_S, _SCHEMA_RETRY_S = 0.03, 0.5


class SupervisorRuns(Exception):
    """Another process supervises the node of this folder already."""


@contextlib.contextmanager
def sole_supervisor(folder: Path, stop: threading.Event, patience_s: float, *, waits: bool = True) -> Iterator[bool]:
    """Holds the node's lock for a supervisor; gives False where `stop` was set before it came.

    After `patience_s` of waiting it logs that the folder is shared; without `waits` it raises `SupervisorRuns` at once.
    The system drops the lock with the process.
    """
    lock, logged, since = FileLock(folder / _LOCK_NAME), "", time.monotonic()
    while not stop.is_set():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            if not waits:
                raise SupervisorRuns from None
            if time.monotonic() - since > patience_s:
                other = Published(folder).read()
                _log.error("trouble", extra={"what": Trouble.FOLDER_SHARED(node=other.node if other else "unknown")})
                patience_s = math.inf
            stop.wait(_LOCK_RETRY_S)
            continue
        except OSError as error:
            logged = _log_once(logged, error)
            stop.wait(_DISK_RETRY_S)
            continue
        try:
            yield True
        finally:
            lock.release()
        return
    yield False


def await_schema(database: Database, stop: threading.Event) -> bool:
    """Waits until a worker has made the tables, for the first look at the lease; gives whether they are there.

    A ledger that is away is not waited for: that this node is isolated is the supervisor's to find.
    """
    wait = _SCHEMA_LOOK_S
    while not stop.is_set():
        try:
            if migrate.revision(database) is not None:
                return True
        except LedgerUnavailable:
            return False
        except LedgerError as error:
            _log.debug("the schema is not there yet", extra={"reason": str(error)})
        stop.wait(wait)
        wait = min(2 * wait, _SCHEMA_RETRY_S)
    return False


def node_files(
    settings: Settings, database: Database, clock: Clock, stop: threading.Event
) -> tuple[Copy, Queueing] | None:
    """The node's copy and queue, opened; None where `stop` was set before the disk took them.

    Workers learn nothing from a supervisor without them, so a node with such a disk has no part in who leads.
    """
    logged = ""
    while not stop.is_set():
        try:
            return _opened(settings, database, clock)
        except QueueBusy:
            _log.warning("the queue is being looked over by others of this node")
        except (OSError, sqlite3.Error) as error:
            logged = _log_once(logged, error)
        stop.wait(_DISK_RETRY_S)
    return None


def _opened(settings: Settings, database: Database, clock: Clock) -> tuple[Copy, Queueing]:
    """Raises OSError, `sqlite3.Error` and `QueueBusy`."""
    queueing = Queueing(settings, database, clock)
    pace = Pace(settings.heartbeat_interval, lambda: queueing.called_at)
    return Copy(settings, database, clock, queueing, pace), queueing


def _log_once(logged: str, error: Exception) -> str:
    """Logs that the disk takes nothing, unless that is what was `logged` last; gives what is logged by now."""
    reason = f"{type(error).__name__}: {error}"
    if reason != logged:
        _log.error("this node's disk takes nothing: it has no part in who leads", extra={"reason": reason})
    return reason
