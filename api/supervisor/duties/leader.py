"""Does the duties while this process leads: one at a time, in chunks, each chunk one transaction.

Between two chunks the connection is free for the heartbeat, which shares it. A duty that costs much is done less often,
and so is each while nothing is added to the log.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from api import logs
from api.config.settings import Settings
from api.ledger import search_index
from api.ledger.database import Database
from api.ledger.errors import LedgerBusy, LedgerSlow
from api.ledger.log import Journal
from api.licensing import DAY
from api.node.clock import Clock
from api.node.identity import Node
from api.snapshot.evidence import Evidence
from api.supervisor.duties import culls, notices, outbox, retention, rollup, watching
from api.supervisor.duties.counts import Proof
from api.supervisor.duties.keep_awake import LOOK_S, KeepAwake
from api.supervisor.duties.pace import Pace, by_date
from api.supervisor.duties.terms import Term, Writing
from failover import Supervisor
from failover.errors import NotLeading
from failover.jobs import Jobs

_log = logs.get("duties")

_TICK_S = 1.0
#: How long a duty goes on with its chunks: the others wait.
_TURN_S = 1.0
#: After each turn a duty rests for at least so many times what it took.
_COST_FACTOR = 20.0


class Duty(msgspec.Struct, frozen=True):
    """`do` does one chunk and gives whether there may be more; every `every_s` seconds, or less often if that costs.

    `quiet_s`: the same while the log's head is where it was at the duty's last turn.
    """

    name: str
    every_s: float
    do: Callable[[Writing], bool]
    quiet_s: float = 0.0
    cost_factor: float = _COST_FACTOR


class _Turn(msgspec.Struct, frozen=True):
    """When (monotonic) a duty was done last, when it is due again at the earliest, and where the log was before."""

    began: float
    due: float
    head: int


def _always_at_the_same() -> int:
    return 0


class DutyFailed(Exception):
    """Some duties failed when they were last tried; they are tried again, and the others are done all the same."""


class Duties:
    """The duties of one process, which it does in its terms as the leader."""

    def __init__(
        self,
        term: Term,
        duties: Sequence[Duty],
        monotonic: Callable[[], float] = time.monotonic,
        head: Callable[[], int] = _always_at_the_same,
    ) -> None:
        """`head`: where the log was at the last poll."""
        self._term = term
        self._duties = duties
        self._monotonic, self._head = monotonic, head
        self._turns: dict[str, _Turn] = {}
        self._failing: dict[str, str] = {}

    def tick(self) -> None:
        """Does the duty that has been due for longest, if one is. Raises `DutyFailed` while there are such."""
        if not self._term.leads:
            self._turns.clear()
            self._failing.clear()
            return
        head = self._head()
        duty = min(self._duties, key=lambda duty: self._due(duty, head))
        if self._monotonic() >= self._due(duty, head):
            self._take_turn(duty, head)
        if self._failing:
            raise DutyFailed("; ".join(f"{name}: {reason}" for name, reason in self._failing.items()))

    def _due(self, duty: Duty, head: int) -> float:
        turn = self._turns.get(duty.name)
        if turn is None:
            return -math.inf
        return max(turn.due, turn.began + duty.quiet_s) if head == turn.head else turn.due

    def _take_turn(self, duty: Duty, head: int) -> None:
        began = self._monotonic()
        try:
            self._do(duty, began + _TURN_S)
            self._failing.pop(duty.name, None)
        except LedgerSlow as error:
            self._failing[duty.name] = f"{type(error).__name__}: {error}"
        except (NotLeading, LedgerBusy) as error:
            _log.debug("a duty has to wait", extra={"duty": duty.name, "reason": str(error)})
        except Exception as error:
            self._failing[duty.name] = f"{type(error).__name__}: {error}"
        now = self._monotonic()
        due = max(began + duty.every_s, now + duty.cost_factor * (now - began))
        self._turns[duty.name] = _Turn(began, due, head)

    def _do(self, duty: Duty, until: float) -> None:
        more = True
        while more and self._monotonic() < until:
            with self._term.transaction() as writing:
                more = duty.do(writing)


def duties_of(settings: Settings) -> list[Duty]:
    """All duties in the order of a new leader's first round: culls and overdue notices go by what the watch found."""
    limits = watching.Limits(settings.heartbeat_timeout, settings.isolated_max_age)
    keep = retention.RetentionPeriods(
        checks=settings.check_retention_days * DAY,
        events=settings.event_retention_days * DAY,
        timeout=settings.heartbeat_timeout,
        gone=settings.isolated_max_age,
    )
    pace = Pace()
    return [
        # A look that comes late is taken for trouble, so it is put off by no more than half of what is late.
        Duty(
            "watch",
            settings.heartbeat_interval,
            partial(watching.keep_watch, limits=limits, pace=pace),
            quiet_s=settings.heartbeat_timeout / 2,
            cost_factor=0.0,
        ),
        Duty("culls", 5.0, by_date(culls.cull, pace), quiet_s=30.0),
        Duty("expiry", 10.0, by_date(notices.record_expiries, pace), quiet_s=60.0),
        Duty("overdue", 10.0, by_date(notices.record_overdue, pace), quiet_s=60.0),
        Duty("outbox", 3.0, outbox.enqueue_cluster_notices, quiet_s=30.0),
        Duty("roll-ups", 60.0, rollup.roll_up, quiet_s=300.0),
        Duty("check retention", 10.0, by_date(partial(retention.forget_checks, keep=keep), pace), quiet_s=300.0),
        Duty("event retention", 10.0, by_date(partial(retention.forget_events, keep=keep), pace), quiet_s=300.0),
        Duty("tidying", 3600.0, by_date(partial(retention.tidy, keep=keep), pace)),
        Duty("machines", 3600.0, by_date(partial(retention.forget_machines, keep=keep), pace)),
        # Searches find what is not filled yet, one by one: this only keeps it few. A large ledger takes some minutes.
        Duty("search index", 10.0, _search_filling(), quiet_s=300.0, cost_factor=3.0),
        Duty("answers", 3600.0, by_date(retention.forget_answers, pace)),
    ]


def _search_filling() -> Callable[[Writing], bool]:
    """Fills the index that licenses are searched by."""
    filling = search_index.Filling()
    return lambda writing: filling(writing.connection)


def run_on(
    jobs: Jobs,
    settings: Settings,
    database: Database,
    supervisor: Supervisor,
    clock: Clock,
    evidence: Evidence,
    head: Callable[[], int],
) -> Proof:
    """Lets `jobs` do the leader's duties on `database`, by `clock`, whenever `supervisor` leads.

    Gives what proves the counts, held against `evidence`. `head`: where the log was at the last poll.
    """
    me = supervisor.me
    journal = Journal(database, Node(me.node, me.rank, me.instance), clock)

    def epoch() -> int | None:
        return supervisor.elector.trust.epoch if supervisor.is_leader() else None

    tick_s = min(_TICK_S, settings.heartbeat_interval)
    proof = Proof(evidence)
    duties = [*duties_of(settings), Duty("counts", 3600.0, proof), Duty("doubtful counts", 300.0, proof.again)]
    if settings.keep_awake:
        duties.append(Duty("keep awake", LOOK_S, KeepAwake(settings.peer_urls).do))
    jobs.every(tick_s, "duties", Duties(Term(journal, me, epoch), duties, head=head).tick)
    return proof
