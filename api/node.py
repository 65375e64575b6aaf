"""Who this node is and what part it plays, as every answer, every event and `/stats` say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from api.ids import new_id
from api.ledger.records import Mode
from api.licensing import UNWATCHED, Watch
from api.supervision.published import NodeState


def _nobody_says() -> NodeState | None:
    return None


@dataclass(frozen=True)
class Node:
    """This node. `instance` is made at start: two copies of one node, as in a rolling deploy, are two instances.

    `published` gives what its supervisor last said. Until that has said something, the node stands by in epoch 0.
    """

    id: str
    rank: int = 1
    instance: str = field(default_factory=new_id)
    published: Callable[[], NodeState | None] = _nobody_says

    @property
    def role(self) -> str:
        said = self.published()
        return "standby" if said is None else said.role

    @property
    def state(self) -> str:
        said = self.published()
        return "STARTING" if said is None else said.state

    @property
    def epoch(self) -> int:
        said = self.published()
        return 0 if said is None else said.epoch

    @property
    def watch(self) -> Watch:
        """The span of ledger time in which silence counts, as this node's supervisor last said; none if it is dumb."""
        said = self.published()
        return UNWATCHED if said is None else said.watch

    @property
    def mode(self) -> Mode:
        """How an event comes to the ledger now: `backup` where rank 1 is not known to lead."""
        said = self.published()
        return "backup" if said is None else said.mode
