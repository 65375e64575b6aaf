"""How much waits in a node's queue, as it was last counted."""

from __future__ import annotations

from failover.errors import QueueError
from failover.queue import EventQueue, QueueStats


class QueueGauge:
    """Counts `queue`; one that is None stays empty."""

    def __init__(self, queue: EventQueue | None) -> None:
        self._queue = queue
        #: What was counted last.
        self.stats = QueueStats(0, 0, None, 0, 0)
        #: Why the queue could not be looked into at the last try.
        self.trouble: str | None = None

    def count(self) -> QueueStats:
        """Counts anew. A queue whose disk fails must not stop the beat: what was counted last stands."""
        if self._queue is not None:
            try:
                self.stats, self.trouble = self._queue.stats(), None
            except QueueError as error:
                self.trouble = str(error)
        return self.stats
