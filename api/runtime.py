"""One worker's composition root: makes what it holds, hands each part what it needs, and starts and ends it all.

A ledger that is down at start is waited for in the background: calls are answered `STARTING` meanwhile.
"""

from __future__ import annotations

import threading
from typing import Any

from api.checks.recorder import Recorder
from api.checks.unknown_keys import UnknownKeys
from api.config.settings import Settings
from api.ids import new_id
from api.node.clock import Clock
from api.node.identity import Node
from api.node.published import Published
from api.node.shared_state import open_shared_state
from api.signing import Signer
from api.snapshot import SNAPSHOT_NAME, Reader, source_of
from api.snapshot.evidence import Evidence
from api.snapshot.timekeeping import Timekeeping
from api.worker.connections import Connections
from api.worker.in_process_supervisor import InProcessSupervisor
from api.worker.isolated_mode import IsolatedMode
from api.worker.ledger_polling import LedgerPolling
from api.worker.ledger_start import IsolatedStart, LedgerStart
from api.worker.readiness import Readiness
from api.worker.signing_state import SigningState
from failover.config import deploy_overlap
from failover.jobs import Jobs

#: As often as the supervisor asks the ledger, whose answer stands for a worker's own.
_POLL_EVERY_S = 1.5


class Runtime:
    """Made once per process, after any fork: it owns the connections, the lanes and the background jobs."""

    def __init__(self, settings: Settings, instance: str | None = None, *, background: bool = True) -> None:
        """`instance`: the node's, where a supervisor of that name runs beside the workers; else one is run here.

        Without `background` this process has no threads between requests: `poll_when_due` is to be called with each,
        and the supervisor is another process (`flask node run-supervisor`).
        """
        self.settings = settings
        self._background = background
        self._poll_due = float("-inf")
        self.clock = Clock()
        self.started = self.clock.monotonic()
        self.node_state = Published(settings.data_dir)
        self._stop = threading.Event()
        supervises = instance is None and background
        self._supervisor = InProcessSupervisor(settings, self._stop) if supervises else None
        own = self._supervisor.instance if self._supervisor else instance or new_id()
        self.node = Node(settings.node_id, settings.node_rank, own, self.node_state.read, instance is not None)
        self.state = open_shared_state(settings.data_dir)
        self._connections = connections = Connections(settings, self.clock, self.state.breaker)
        self.ledger, self.admins = connections.ledger, connections.admins
        source = source_of(settings.database_url)
        self.reader = Reader(
            settings.data_dir / SNAPSHOT_NAME,
            self.state.changes,
            self.clock.monotonic,
            source=source,
            longest_s=settings.isolated_max_age,
        )
        self.evidence = Evidence(self.reader, connections.database, self.state.breaker)
        isolated_mode = IsolatedMode(settings, self.state, self.reader, self.node, self.clock, background=background)
        self.recorder = self._recorder(isolated_mode)
        self.unknown_keys = UnknownKeys(
            self.state.changes, settings.workers, self.clock.monotonic, is_known=self.reader.has_key
        )
        self.signing = SigningState(settings.signing_keys, self.node.id)
        self.ledger_start = LedgerStart(connections.database, self.reader, self.clock, settings.signing_keys)
        self.polling = self._polling(source, isolated_mode)
        self.readiness = self._readiness()
        self.jobs = Jobs()

    def _recorder(self, isolated_mode: IsolatedMode) -> Recorder:
        return Recorder(
            self.ledger,
            self.node,
            self.clock,
            reader=self.reader,
            state=self.state,
            isolated=isolated_mode.lane(),
            evidence=self.evidence,
            hurried=self._connections.hurried,
            budget_s=self.settings.ledger_budget,
            background=self._background,
        )

    def _polling(self, source: str, isolated_mode: IsolatedMode) -> LedgerPolling:
        breaker = self.state.breaker
        return LedgerPolling(
            self._connections,
            self.settings.ledger_budget,
            source,
            self.clock,
            breaker,
            self.node_state,
            timekeeping=Timekeeping(self.clock, self._connections.database, breaker, self.reader.position),
            start=self.ledger_start,
            isolated_start=IsolatedStart(self.state, self.reader, self.clock, self.signing),
            isolated_mode=isolated_mode,
            signing=self.signing,
            recorder=self.recorder,
        )

    def _readiness(self) -> Readiness:
        return Readiness(
            self.started,
            self.clock,
            self.node,
            self.node_state,
            self.state,
            self.reader,
            self.signing,
            self.ledger_start,
            self.polling,
            deploy_overlap(self.settings.failback_delay, self.settings.heartbeat_timeout),
            supervised_from_outside=not self._background,
        )

    # -- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the background jobs, unless it was stopped before; the first poll of the ledger runs at once."""
        if self._stop.is_set():
            return
        self.jobs.every(_POLL_EVERY_S, "ledger", self.polling.poll)
        if not self._background:
            self.polling.first_poll(self.recorder.open_queue)
            self._poll_due = self.clock.monotonic() + _POLL_EVERY_S
            return
        first = threading.Thread(
            target=self.polling.first_poll, args=(self.recorder.open_queue,), name="first-poll", daemon=True
        )
        first.start()
        self.jobs.start()
        if self._supervisor is not None:
            self._supervisor.start()

    def poll_when_due(self) -> None:
        """For a process without threads: what the background job does, here, where it is due.

        A supervisor that runs finds the ledger again for an isolated node, whose requests need not look for it.
        """
        now = self.clock.monotonic()
        is_watched = self.state.breaker.isolated_since is not None and self.node_state.read() is not None
        if now >= self._poll_due and not is_watched:
            self._poll_due = now + _POLL_EVERY_S
            self.jobs.run("ledger", self.polling.poll)

    def settle(self) -> None:
        """`Readiness.settle`."""
        self.readiness.settle()

    def stop(self) -> None:
        self._stop.set()
        self.jobs.stop()
        self._connections.close()
        self.reader.close()
        if self._supervisor is not None:
            self._supervisor.leave_siblings()

    def give_up(self) -> None:
        """`stop`, with the supervisor at its end: nothing of this process has a part in the node any more."""
        self.stop()
        if self._supervisor is not None:
            self._supervisor.join()

    def leave(self) -> None:
        """To be called when the process ends: the last of the node's resigns, any other leaves the lease to them."""
        if self._supervisor is None or self._stop.is_set():
            return
        self.jobs.stop()
        self._supervisor.leave()

    # -- what it is asked ---------------------------------------------------------------------------------------------

    @property
    def supervises(self) -> bool:
        """Whether this process has its node's part in the cluster, as one does under a server other than ours."""
        return self._supervisor is not None and self._supervisor.supervises

    @property
    def signer(self) -> Signer:
        """The key that signs now. Raises the problem `STARTING`, which says what this node waits for."""
        return self.readiness.signer

    def require_started(self) -> None:
        """Raises the problem `STARTING` until the ledger has been opened."""
        _ = self.readiness.signer

    @property
    def waiting_for(self) -> str | None:
        """What keeps this node from giving verdicts, None when nothing does."""
        return self.readiness.waiting_for

    @property
    def troubles(self) -> list[str]:
        """What an operator has to see to, each as a sentence."""
        return self.readiness.troubles

    @property
    def ledger_reachable(self) -> bool:
        """Whether the ledger answered lately."""
        return self.polling.ledger_reachable

    @property
    def ledger_id(self) -> str:
        """Which ledger this node answers from: known as soon as there is a signer."""
        return self.signing.ledger_id

    @property
    def published_keys(self) -> dict[str, Any]:
        """The public keys as a JWKS."""
        return self.signing.published
