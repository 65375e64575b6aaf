"""A node's supervisor on a thread of one of its workers, under a WSGI server other than our own.

Every worker has such a thread; the one whose thread gets the supervisor's lock leads or follows for all of them.
"""

from __future__ import annotations

import threading

from api.config.settings import Settings
from api.node.siblings import Siblings
from api.supervisor import supervise as process
from api.supervisor.resigning import resign

#: How long a worker that supervises and ends waits for the others of its node to end as well, and then for itself.
_SIBLINGS_S, _LEAVE_S = 0.7, 10.0


class InProcessSupervisor:
    """This worker's thread, and its place among the node's processes."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        """`stop`: set when the worker ends; the supervisor resigns upon it."""
        self._settings, self._stop = settings, stop
        self._siblings = Siblings(settings.data_dir, settings.node_id)
        self.instance = self._siblings.instance
        self._begun, self._lease_left_to_sibling = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def supervises(self) -> bool:
        """Whether this worker's thread is the one that supervises."""
        return self._begun.is_set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    def leave_siblings(self) -> None:
        """This worker is none of the node's processes any more."""
        self._siblings.leave()

    def join(self) -> None:
        """Waits for the thread's end, which comes after `stop`; at most ten seconds."""
        if self._thread is not None:
            self._thread.join(_LEAVE_S)

    def leave(self) -> None:
        """Sets `stop`: the last of the node's processes resigns the lease, any other leaves it to them."""
        supervises = self.supervises
        is_last = self._siblings.leave(_SIBLINGS_S if supervises else 0.0)
        if not is_last:
            self._lease_left_to_sibling.set()
        self._stop.set()
        self.join()
        if is_last and not supervises:
            resign(self._settings, self.instance)

    def _supervise(self) -> None:
        process.supervise(
            self._settings,
            self.instance,
            self._stop,
            begun=self._begun,
            lease_left_to_sibling=self._lease_left_to_sibling,
        )
