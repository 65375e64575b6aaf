"""The supervisor's part in a node that was isolated: its queue goes to the ledger, then the node goes back to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from api import logs
from api.config.settings import Settings
from api.ids import new_id
from api.ledger.database import Database
from api.ledger.errors import LedgerError
from api.ledger.store import ledger_on
from api.node.clock import Clock
from api.node.published import QueueState
from api.node.shared_state import STATE_NAME, SharedState
from api.snapshot import SNAPSHOT_NAME, Position, Reader, source_of
from api.snapshot.evidence import Evidence
from api.snapshot.timekeeping import Timekeeping
from api.supervisor.replay import LedgerReplay
from failover import EventQueue, Replay
from failover.errors import QueueError, QueueUnavailable
from failover.replay import Held

_log = logs.get("supervision")

#: How long a node stays isolated at least: a ledger that comes and goes costs one slow answer each time it is believed.
_ISOLATED_FOR_S = 1.0
#: The supervisor looks five times a second.
_LATE_S = 0.4
#: For how long events are not taken before that is reported: rows that others hold for a moment are no trouble.
_HELD_FOR_S = 2.0


class Queueing:
    """The node's queue and its replay; None where the disk does not let the queue be opened.

    Raises `QueueBusy` where the workers have it, which look it over as well when they start.
    """

    def __init__(
        self, settings: Settings, database: Database, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        state = SharedState(settings.data_dir / STATE_NAME)
        self._changes, self._breaker = state.changes, state.breaker
        self._monotonic = monotonic
        self._database = database
        self._budget_s = settings.ledger_budget
        self._silent_since: float | None = None
        self._looked_at: float | None = None
        # Hurried: replay holds the log's head while it writes, and no client waits for what is in a queue.
        self._ledger = ledger_on(database, new_id(), clock, hurried=True)
        #: Whether others keep this node from its ledger, which is there.
        self.blocked = False
        self.queue: EventQueue | None = None
        self.replay: Replay | None = None
        #: Why there is no queue.
        self.trouble: str | None = None
        copy = Reader(settings.data_dir / SNAPSHOT_NAME, self._changes, monotonic, source=source_of(database.url))
        #: This node's copy as a witness of what is in the ledger.
        self.evidence = Evidence(copy, database, self._breaker)
        try:
            self.queue = EventQueue(settings.queue_path)
        except QueueUnavailable as error:
            self.trouble = str(error)
            return
        handler = LedgerReplay(self._ledger, settings.node_id, clock, self.evidence)
        self.replay = Replay(
            self.queue, handler, on_dead=handler.note_dead, ledger=handler.ledger_id, monotonic=monotonic
        )

    @property
    def called_at(self) -> float:
        """When (monotonic) one of this node's workers was last called; 0 where none ever was."""
        return self._changes.called_at

    def listen(self, asking_since: float | None) -> None:
        """Isolates the node where its ledger has owed the supervisor an answer for longer than a call may wait.

        `asking_since`: since when. So a ledger that fell silent costs no client anything, if it is found here first.
        A look that comes late itself proves nothing: what reads the answer did not get to run either.
        """
        now, before = self._monotonic(), self._looked_at
        self._looked_at = now
        is_late = before is not None and now - before > _LATE_S
        silent = asking_since is not None and not is_late and now - asking_since > self._budget_s
        if silent and asking_since != self._silent_since:  # one answer that never comes is reported once
            self._silent_since = asking_since
            if self._breaker.isolated_since is None:
                _log.warning("the ledger is silent: this node goes on without it")
            self._breaker.isolate()

    def go_back(self, polled_at: float | None) -> None:
        """Ends the node's time without its ledger, once that answers and takes calls. Raises `QueueError`.

        `polled_at`: when (monotonic) the question was sent whose answer the workers know; to come: another boot's.

        The queue need not be empty: what comes for a license that has rows there still goes behind them, and nothing
        else joins it. To wait for an empty queue while everything goes into it would be to wait for a pause.
        """
        since, queued = self._breaker.isolated_since, self._breaker.queued
        if since is None:
            self.blocked = False
        if since is None and not self._breaker.may_hold_queued:
            return
        if self.queue is None or not self.queue.stats().pending:
            self._breaker.drained(queued)
        if since is not None and polled_at is not None and since + _ISOLATED_FOR_S <= polled_at <= self._monotonic():
            self._go_back_unless_blocked()

    def _go_back_unless_blocked(self) -> None:
        """Reading may go on where nothing can be written: the locks that calls take are tried first."""
        self.blocked = False
        try:
            self.blocked = self._ledger.is_blocked()
        except LedgerError as error:
            _log.debug("the ledger takes nothing yet", extra={"reason": str(error)})
            return
        if not self.blocked:
            self._breaker.reconnected()
            _log.info("the ledger answers: this node goes back to it")

    @property
    def is_contradicted(self) -> bool:
        """Whether the ledger did not show to a worker what the node's copy holds."""
        return self._breaker.is_contradicted

    def timekeeping(self, clock: Clock, copied: Callable[[], Position | None]) -> Timekeeping:
        """What keeps `clock` true; `copied`: where the node's copy stands."""
        return Timekeeping(clock, self._database, self._breaker, copied)

    def reconciled(self) -> None:
        """The node's copy was made anew: it is what the ledger is."""
        self._breaker.reconciled()

    @property
    def moved_file(self) -> Path | None:
        """The embedded ledger's file, where it is not where it was."""
        return self._database.file if self._database.is_missing else None

    def holds(self, license_id: str) -> bool:
        """Whether events of this license wait; a queue that cannot be read may hold any."""
        try:
            return self.queue is not None and self.queue.holds(license_id)
        except QueueError:
            return True

    def held(self) -> Held | None:
        """What keeps events in the queue though the ledger answers, where that has lasted."""
        held = None if self.replay is None else self.replay.held
        return held if held is not None and self._monotonic() - held.since >= _HELD_FOR_S else None

    def look(self) -> QueueState:
        """The queue's counts, for the published state; without opening the file where nothing was put into it."""
        if self.queue is None or not self._breaker.may_hold_queued:
            return QueueState()
        try:
            stats = self.queue.stats()
        except QueueError:
            return QueueState()
        return QueueState(stats.pending, stats.bytes, stats.oldest_s)
