"""The supervisor as a process of its own, beside the workers of our own server.

Told to end, it resigns at once, and ends when its workers have: what they queue until then it takes to the ledger.
"""

from __future__ import annotations

import signal
import threading

from api import logs
from api.config.settings import Settings
from api.server import LEAVE, WORKERS_ENDED
from api.supervisor.supervise import supervise


def run(settings: Settings, instance: str) -> int:
    """The life of a companion: at `LEAVE` the lease is resigned at once, at `WORKERS_ENDED` it ends. Gives 0."""
    events = {LEAVE: threading.Event(), WORKERS_ENDED: threading.Event()}
    # Waited for by threads: a handler that interrupts this one inside an event's own lock could not set it.
    signal.pthread_sigmask(signal.SIG_BLOCK, events)
    for number, event in events.items():
        threading.Thread(target=_set_at_signal, args=(number, event), name=number.name, daemon=True).start()
    logs.configure(settings.log_level, settings.log_format)
    supervise(settings, instance, *events.values())
    return 0


def _set_at_signal(number: signal.Signals, event: threading.Event) -> None:
    signal.sigwait({number})
    event.set()
