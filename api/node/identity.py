"""Who this node is and what part it plays, as every answer, every event and `/stats` say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from api.ids import new_id
from api.licensing import UNWATCHED, Watch
from api.node.published import Mode, NodeState


def _nobody_says() -> NodeState | None:
    return None


@dataclass(frozen=True)
class Node:
    """This node. `instance` is made at start: two copies of one node, as in a rolling deploy, are two instances.

    `published` gives what the supervisor in this node's folder last said. Until that has said something, the node
    stands by in epoch 0. What is so of the cluster may be any supervisor's word, the role and the state only its own's.
    """

    id: str
    rank: int = 1
    instance: str = field(default_factory=new_id)
    published: Callable[[], NodeState | None] = _nobody_says
    #: Whether this node's supervisor has `instance` too. Under other servers it has that of one of the workers.
    is_named: bool = False

    @property
    def role(self) -> str:
        said = self.published()
        return said.role if said is not None and self.is_own(said) else "standby"

    @property
    def state(self) -> str:
        said = self.published()
        return said.state if said is not None and self.is_own(said) else "STARTING"

    def is_own(self, said: NodeState) -> bool:
        """Whether this node's own supervisor said it: another node may have been given the same folder."""
        return said.instance == self.instance if self.is_named else said.node in ("", self.id)

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
