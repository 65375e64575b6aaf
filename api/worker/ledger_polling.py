"""A worker's polls: whether the ledger answers, what its clock says, and which signing keys it permits.

Where the supervisor asked the same a moment ago and published the answer, the ledger is not asked again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import select

from api.checks.recorder import Recorder
from api.ledger import permitted_keys, tables
from api.ledger.errors import LedgerBusy, LedgerContradicts, LedgerError
from api.ledger.records import LicenseQuery
from api.node.clock import Clock
from api.node.ledger_breaker import LedgerBreaker
from api.node.published import LedgerState, Published
from api.signing import PermittedKeys
from api.snapshot.timekeeping import Timekeeping
from api.worker.connections import Connections
from api.worker.isolated_mode import IsolatedMode
from api.worker.ledger_start import IsolatedStart, LedgerStart
from api.worker.signing_state import SigningState

#: For how long the supervisor's answer stands for one of a worker's own; it asks at every beat, idle or not.
_PUBLISHED_FOR_S = 3.0
#: The ledger counts as out of reach when it has answered no process of this node for so many seconds.
_REACHABLE_FOR_S = 5.0
#: The same while polls only wait for a connection: longer than an admin's longest statement.
_BUSY_FOR_S = 15.0
_NO_LICENSE = LicenseQuery(key_hash="")


class LedgerPolling:
    """One worker's polls. `poll` is called by a job and at the start; the rest by any thread."""

    def __init__(
        self,
        connections: Connections,
        budget_s: float,
        source: str,
        clock: Clock,
        breaker: LedgerBreaker,
        node_state: Published,
        timekeeping: Timekeeping,
        start: LedgerStart,
        isolated_start: IsolatedStart,
        isolated_mode: IsolatedMode,
        signing: SigningState,
        recorder: Recorder,
    ) -> None:
        """`budget_s`: how long a read may take; `source`: which ledger it is, as the supervisor publishes it."""
        self._connections, self._budget_s, self._source = connections, budget_s, source
        self._clock, self._breaker, self._node_state = clock, breaker, node_state
        self._timekeeping, self._signing = timekeeping, signing
        self._start, self._isolated_start = start, isolated_start
        self._isolated_mode, self._recorder = isolated_mode, recorder
        self._failed = False
        #: When (monotonic) this process last asked the ledger itself.
        self._asked_at = float("-inf")
        #: When (monotonic) the ledger last answered the supervisor, as far as this worker took that in.
        self.supervisor_answered_at = float("-inf")
        self._one_at_a_time = threading.Lock()
        #: Set once the first poll is over, whatever came of it.
        self.has_polled = threading.Event()

    def first_poll(self, open_queue: Callable[[], None]) -> None:
        """The poll at the start. `open_queue` is called after it, sooner than the first call could need the queue."""
        try:
            self.poll()
        except LedgerError:  # logged by the job, which tries again; meanwhile every call needs the queue
            open_queue()
        finally:
            self.has_polled.set()
        open_queue()

    def poll(self) -> None:
        """Prepares the ledger where that is still to be done, and follows the permitted keys. Raises `LedgerError`."""
        with self._one_at_a_time:
            self._isolated_mode.enable_when_possible(self._recorder)
            self._timekeeping.heed()
            answer = self._supervisors_answer()
            if answer is not None and answer.keys is not None:
                self._take(answer, answer.keys)
                return
            try:
                self._ask()
            except LedgerContradicts as error:
                self._signing.wait_for(str(error))
                raise
            except LedgerError as error:
                self._failed = self._failed or not isinstance(error, LedgerBusy)
                if self._signing.signer is None or not self._clock.is_trusted:
                    self._isolated_start.attempt(error)
                raise

    @property
    def ledger_reachable(self) -> bool:
        """Whether it answered lately. A poll for which this process had no connection free says nothing of it."""
        if self._is_isolated():
            return False
        answered_at = max(self._connections.database.answered_at or float("-inf"), self.supervisor_answered_at)
        patience_s = _REACHABLE_FOR_S if self._failed else _BUSY_FOR_S
        return self._clock.monotonic() - answered_at < patience_s

    def _is_isolated(self) -> bool:
        return self._breaker.isolated_since is not None

    def _supervisors_answer(self) -> LedgerState | None:
        """What the ledger last answered the supervisor, where that is worth as much as if this process had asked."""
        state = self._node_state.read()
        # An isolated node opens the connections that it needs when that is over.
        if state is None or state.ledger is None or state.source != self._source or self._is_isolated():
            return None
        is_fresh = 0.0 <= self._clock.monotonic() - state.ledger.received < _PUBLISHED_FOR_S
        # A clock that is not decided yet is held against more than samples.
        is_enough = self._start.is_done and is_fresh and self._clock.is_decided and self._clock.is_trusted
        return state.ledger if is_enough else None

    def _take(self, answer: LedgerState, permitted: PermittedKeys) -> None:
        """Nothing but that it answered, where this process has asked since: it may have founded the keys itself."""
        self.supervisor_answered_at, self._failed = answer.received, False
        if answer.sent <= self._asked_at:
            return
        self._timekeeping.look()  # sends nothing where the clock is decided
        if answer.clock is not None:
            self._clock.sample(answer.clock, answer.sent, answer.received)
        self._signing.adopt(permitted, answer.ledger_id)

    def _ask(self) -> None:
        if not self._start.is_done:
            self._signing.ledger_id = self._start.prepare()
        self._asked_at = self._clock.monotonic()
        self._timekeeping.look()
        ledger = self._connections.probe if self._is_isolated() else self._connections.ledger
        ledger.look_up([_NO_LICENSE])  # samples the ledger's clock
        permitted, ledger_id = self._permitted()
        self._failed = False
        self._signing.adopt(permitted, ledger_id)

    def _permitted(self) -> tuple[PermittedKeys, str | None]:
        """The keys that the ledger permits, and which ledger it is: another may have taken its place."""
        database = self._connections.database
        with database.reading() as connection, database.guarded(connection, self._budget_s):
            return permitted_keys.load(connection), connection.scalar(select(tables.ledger.c.ledger_id))
