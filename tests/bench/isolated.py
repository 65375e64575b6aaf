"""A node that is cut off: the same load with and without its database, taking turns, and its queue's way back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import msgspec

from api.checks.isolated import from_row, to_row
from api.ids import new_id
from failover.queue import Event, EventQueue
from tests.bench.calls import LEDGER, QUEUED
from tests.bench.copying import is_copied
from tests.bench.ledger import replayed
from tests.bench.plan import Plan
from tests.bench.sample import Sample, measure
from tests.bench.stage import PATH, Stage
from tests.support.processes import ServerProcess, until

_QUEUE = "sync_queue.db"
_BATCH = 500
_PATIENCE_S = 180.0
#: The rows of one commit have their moments closer together than this, and those of two commits do not.
_ONE_COMMIT_S = 0.02


@dataclass
class IsolatedLoad:
    """`ledger`, `isolated`: a window of each for every round; `answered`: checks that were answered without a database.

    `queued`: events that the queue took meanwhile; `taken`: all that it took in the end, `recorded`: what the ledger
    has of them. `backlog`: pending when the database came back last; `per_s`: how fast that went into the ledger.
    """

    connections: int
    ledger: list[Sample] = field(default_factory=list)
    isolated: list[Sample] = field(default_factory=list)
    answered: int = 0
    queued: int = 0
    taken: int = 0
    recorded: int = 0
    backlog: int = 0
    per_s: float = 0.0


def measured(stage: Stage, plan: Plan) -> IsolatedLoad:
    """Stops and starts the stage's Postgres in every round; what was queued is in the ledger before the next."""
    found = IsolatedLoad(plan.most)
    disk = stage.new_disk()
    with stage.node(disk=disk) as node:
        stage.first_verdict(node)
        until(lambda: is_copied(disk, plan.licenses), "a complete copy", _PATIENCE_S)
        with contextlib.closing(EventQueue(disk / _QUEUE)) as queue:
            measure(stage, node, PATH, plan.most, plan.warm_up_s, LEDGER)
            for turn in range(plan.rounds):
                found.ledger.append(measure(stage, node, PATH, plan.most, plan.seconds, LEDGER))
                _without_a_database(stage, node, queue, plan, found, last=turn == plan.rounds - 1)
            # The calls that asked whether it answers from the ledger again went behind what was queued.
            until(lambda: not queue.stats().pending, "an empty queue", _PATIENCE_S)
            found.taken, moments = queue.stats().total, replayed(stage.url, queue.origin)
    found.recorded = len(moments)
    found.per_s = _rate(moments[-found.backlog :])
    return found


def _without_a_database(
    stage: Stage, node: ServerProcess, queue: EventQueue, plan: Plan, found: IsolatedLoad, *, last: bool
) -> None:
    """One turn: a window without a database, and then the queue's way into it. `last`: from a long queue."""
    before = queue.stats().total
    stage.postgres.stop()
    until(lambda: stage.is_answered(node, QUEUED), "an answer from the queue", _PATIENCE_S)
    found.isolated.append(measure(stage, node, PATH, plan.most, plan.seconds, QUEUED))
    found.answered += 1 + found.isolated[-1].answered
    found.queued += queue.stats().total - before
    if last:
        _fill(queue, plan.backlog)
        found.backlog = queue.stats().pending
    stage.postgres.start()
    until(lambda: not queue.stats().pending, "an empty queue", _PATIENCE_S)
    until(lambda: stage.is_answered(node, LEDGER), "an answer from the ledger", _PATIENCE_S)


def _fill(queue: EventQueue, backlog: int) -> None:
    """Puts copies of what waits in the queue behind it, each an event of its own, until so many wait there."""
    patterns = [queued.event for queued in queue.pending(_BATCH)]
    while (missing := backlog - queue.stats().pending) > 0:
        queue.append([_copy(pattern) for pattern in patterns[:missing]])


def _copy(row: Event) -> Event:
    return to_row(msgspec.structs.replace(from_row(row), event_id=new_id()))


def _rate(moments: list[float]) -> float:
    """Events a second between the first commit and the last of these; the first commit's own took no time yet."""
    later = sum(moment - moments[0] > _ONE_COMMIT_S for moment in moments)
    return later / (moments[-1] - moments[0]) if later else 0.0
