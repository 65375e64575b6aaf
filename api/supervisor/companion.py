"""The supervisor as a process of its own: beside the workers of our own server, or started by an operator.

At the signal to end it resigns at once. Beside workers it ends when they have: what they queue until then it takes to
the ledger.
"""

from __future__ import annotations

import signal
import threading

from api import logs
from api.config.settings import Settings
from api.ids import new_id
from api.server import LEAVE, WORKERS_ENDED
from api.supervisor.supervise import supervise


def run(settings: Settings, instance: str) -> int:
    """The life of a companion: at `LEAVE` the lease is resigned at once, at `WORKERS_ENDED` it ends. Gives 0."""
    events = {LEAVE: threading.Event(), WORKERS_ENDED: threading.Event()}
    # Waited for by threads: a handler that interrupts this one inside an event's own lock could not set it.
    signal.pthread_sigmask(signal.SIG_BLOCK, events)
    for number, event in events.items():
        threading.Thread(target=_set_at_signal, args=({number}, event), name=number.name, daemon=True).start()
    logs.configure(settings.log_level, settings.log_format)
    supervise(settings, instance, *events.values())
    return 0


def set_when_stopped() -> threading.Event:
    """An event that SIGTERM, SIGINT and SIGHUP set. To be called before any other thread is started."""
    ends, stop = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}, threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    threading.Thread(target=_set_at_signal, args=(ends, stop), name="signals", daemon=True).start()
    return stop


def run_alone(settings: Settings, stop: threading.Event) -> None:
    """The life of a supervisor whose node's workers another server started: until `stop` is set.

    Raises `SupervisorRuns` where the node has one already.
    """
    logs.configure(settings.log_level, settings.log_format)
    supervise(settings, new_id(), stop, waits=False)


def _set_at_signal(numbers: set[signal.Signals], event: threading.Event) -> None:
    signal.sigwait(numbers)
    event.set()
