"""This node's identity and role, as every answer, every event and `/stats` show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from api.ids import new_id
from api.licensing import UNWATCHED, Watch
from api.node.published import Mode, NodeState


def _nothing_published() -> NodeState | None:
    return None


@dataclass(frozen=True)
class Node:
    """This node. `instance` is made at start: two copies of one node, as in a rolling deploy, are two instances.

    `published` gives what the supervisor in this node's folder last published. Until there is something, the node
    stands by in epoch 0. What holds for the cluster may come from any supervisor, role and state only from its own.
    """

    id: str
    rank: int = 1
    instance: str = field(default_factory=new_id)
    published: Callable[[], NodeState | None] = _nothing_published
    #: Whether this node's supervisor has `instance` too. Under other servers it has that of one of the workers.
    is_named: bool = False

    @property
    def role(self) -> str:
        published = self.published()
        return published.role if published is not None and self.is_own(published) else "standby"

    @property
    def state(self) -> str:
        published = self.published()
        return published.state if published is not None and self.is_own(published) else "STARTING"

    def is_own(self, published: NodeState) -> bool:
        """Whether this node's own supervisor published it: another node may have been given the same folder."""
        return published.instance == self.instance if self.is_named else published.node in ("", self.id)

    @property
    def epoch(self) -> int:
        published = self.published()
        return 0 if published is None else published.epoch

    @property
    def watch(self) -> Watch:
        """The span of ledger time in which silence counts, as last published; none where nothing is published."""
        published = self.published()
        return UNWATCHED if published is None else published.watch

    @property
    def mode(self) -> Mode:
        """How an event comes to the ledger now: `backup` where rank 1 is not known to lead."""
        published = self.published()
        return "backup" if published is None else published.mode
