"""Whether a worker gives verdicts, what it waits for where it does not, and what an operator has to see to."""

from __future__ import annotations

import time

from api.licensing import UNWATCHED
from api.node.clock import Clock
from api.node.identity import Node
from api.node.published import Published
from api.node.shared_state import SharedState
from api.node.troubles import Trouble
from api.problems import Problem
from api.signing import Signer
from api.snapshot import Reader
from api.supervisor.troubles import trouble_of
from api.worker.ledger_polling import LedgerPolling
from api.worker.ledger_start import LedgerStart
from api.worker.signing_state import SigningState

#: How long a supervisor is waited for that has published nothing since this worker started.
_SUPERVISOR_PATIENCE_S = 3.0
_SETTLE_S, _SETTLE_LOOK_S = 5.0, 0.02


class Readiness:
    """One worker's, at each moment that it is asked."""

    def __init__(
        self,
        started: float,
        clock: Clock,
        node: Node,
        node_state: Published,
        state: SharedState,
        reader: Reader,
        signing: SigningState,
        start: LedgerStart,
        polling: LedgerPolling,
        deploy_overlap_s: float,
        *,
        supervised_from_outside: bool = False,
    ) -> None:
        """`started`: when (monotonic) the worker did.

        `deploy_overlap_s`: for how long two releases of a node may share its folder; `supervised_from_outside`: whether
        an operator has to start the supervisor.
        """
        self._started = started
        self._clock, self._node, self._node_state, self._state = clock, node, node_state, state
        self._reader, self._signing, self._start, self._polling = reader, signing, start, polling
        self._deploy_overlap_s = deploy_overlap_s
        self._supervised_from_outside = supervised_from_outside
        self._supervisor_known = False

    @property
    def signer(self) -> Signer:
        """The key that signs now. Raises the problem `STARTING`, which says what this node waits for."""
        signer = self._signing.signer
        if signer is None or not self._knows_its_part() or self.withheld_reason is not None:
            raise Problem("STARTING", f"waiting for {self.waiting_for}")
        return signer

    @property
    def waiting_for(self) -> str | None:
        """What keeps this node from giving verdicts, None when nothing does."""
        withheld_reason = self.withheld_reason
        if self._signing.signer is None:
            return withheld_reason or self._signing.waiting_for
        if not self._knows_its_part():
            return "the supervisor"
        if withheld_reason is not None:
            return withheld_reason
        if self._polling.ledger_reachable:
            return None
        reason = self._reader.unusable_reason(self._clock.now())
        return f"the ledger: {reason}" if reason else None

    @property
    def withheld_reason(self) -> str | None:
        """What keeps this node from giving verdicts though it has a key: its supervisor found it, or this process."""
        published = self._node_state.read()
        if published is not None and published.waits_for is not None:
            return published.waits_for
        dispute = self._clock.dispute
        return None if dispute is None or self._clock.is_trusted else trouble_of(dispute)

    @property
    def troubles(self) -> list[str]:
        """What an operator has to see to, each as a sentence."""
        published = self._node_state.read()
        own = [] if self._state.is_shared else [Trouble.DISK()]
        if published is None and self._supervised_from_outside:
            own.append(Trouble.SUPERVISOR_MISSING())
        if published is not None and not self._node.is_own(published) and self._outlasts_a_deploy():
            own.append(Trouble.FOLDER_SHARED(node=published.node))
        for reason in (self._start.objection, self.withheld_reason):
            if reason is not None and (published is None or reason not in published.troubles):
                own.append(reason)
        return own + ([] if published is None else list(published.troubles))

    def settle(self) -> None:
        """Waits until this process gives verdicts, or knows that it will not soon; some seconds at most.

        For a worker that is yet to take connections: another one, or the next server, can answer at once.
        """
        end = self._started + _SETTLE_S
        self._polling.has_polled.wait(end - self._clock.monotonic())
        while self._signing.signer is not None and not self._knows_its_part() and self._clock.monotonic() < end:
            time.sleep(_SETTLE_LOOK_S)

    def _outlasts_a_deploy(self) -> bool:
        return self._clock.monotonic() - self._started > self._deploy_overlap_s

    def _knows_its_part(self) -> bool:
        """Whether the supervisor has published. Serving does not depend on it: it is waited for only at the start."""
        if self._supervisor_known:
            return True
        published = self._node_state.read()
        is_known = published is not None and published.at > self._started
        if published is not None:
            # What it is to find out first: whether silence counts, or that the ledger cannot be asked.
            is_isolated = self._state.breaker.isolated_since is not None
            is_known = is_known and (published.watch != UNWATCHED if published.ledger_reachable else is_isolated)
        self._supervisor_known = is_known or self._clock.monotonic() - self._started > _SUPERVISOR_PATIENCE_S
        return self._supervisor_known
