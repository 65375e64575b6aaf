"""What lets a worker go on without its ledger: memory shared with its node's processes, and a lane to the queue.

Without a place to share it would not learn that the ledger is back: a disk that takes nothing means no isolated mode.
"""

from __future__ import annotations

from api import logs
from api.checks.isolated import Isolated
from api.checks.recorder import Recorder
from api.config.settings import Settings
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import STATE_NAME, SharedState
from api.snapshot import Reader

_log = logs.get("runtime")


class IsolatedMode:
    """One worker's. It comes about at the start, or later, once the disk takes something."""

    def __init__(
        self,
        settings: Settings,
        state: SharedState,
        reader: Reader,
        node: Node,
        clock: Clock,
        *,
        background: bool = True,
    ) -> None:
        """`background`: whether this process may have threads of its own between requests."""
        self._settings, self._state, self._background = settings, state, background
        self._reader, self._node, self._clock = reader, node, clock

    def lane(self) -> Isolated | None:
        """The lane into the queue, None while the disk takes nothing."""
        if not self._state.is_shared:
            return None
        return Isolated(
            self._settings.queue_path,
            self._reader,
            self._state.breaker,
            self._node,
            self._clock,
            background=self._background,
        )

    def enable_when_possible(self, recorder: Recorder) -> None:
        """Gives `recorder` the lane as soon as the disk takes something, where it did not at the start."""
        if self._state.is_shared:
            return
        folder = self._settings.data_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._state.move_to(folder / STATE_NAME)
        except OSError:
            return  # logged at the start, and on /readyz until it is over
        lane = self.lane()
        if lane is not None:
            recorder.attach_isolated(lane)
        _log.info("DATA_DIR takes something: this node keeps a copy of its ledger and a queue")
