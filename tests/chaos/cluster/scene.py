"""What a fault is made of: its kind, what was drawn for it, and the scene that it is made in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from api.node.troubles import Trouble
from tests.chaos.cluster.history import Fault, now
from tests.chaos.cluster.site import NODES, Host, Site
from tests.support.processes import until

#: The tables that every check needs; the rest is for who leads, for admins and for people.
NEEDED = frozenset({"licenses", "machines", "policies", "events", "log_head", "check_minutes"})
#: For a takeover; a second fault may keep the database away meanwhile.
_TAKEOVER_S, _OVERLAPPED_S = 60.0, 120.0
_LONG_OUTAGE_SHARE, _LONG_OUTAGE_S = 0.25, (40.0, 60.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault, and what tells which others it may overlap with.

    `parts`: what no other fault may touch meanwhile; `{rank}` is the drawn one. `ranks`: of these nodes one is drawn;
    `tables`: draws tables, which are parts as well. `silent`: nodes that give no verdict, or that no client reaches,
    `None` for the drawn one. `takes_ledger`: a node may be without its ledger, so that a queue fills; `needs_ledger`:
    no queue may have events. `prepares`: it takes a while until it is made; `brief`: it is over soon. `troubles`: names
    of `api.node.troubles.Trouble` of which nodes say one while it lasts, where it meets what every check needs.
    """

    name: str
    make: Callable[[Scene], None]
    parts: tuple[str, ...]
    ranks: tuple[int, ...] = (1,)
    tables: Callable[[random.Random], tuple[str, ...]] | None = None
    silent: tuple[int | None, ...] = ()
    takes_ledger: bool = False
    needs_ledger: bool = False
    prepares: bool = False
    brief: bool = False
    troubles: tuple[str, ...] = ()

    def draw(self, rng: random.Random) -> Draw:
        return Draw(self, rng.choice(self.ranks), () if self.tables is None else self.tables(rng))


@dataclass(frozen=True, slots=True)
class Draw:
    """A kind of fault with the node and the tables that it is to meet."""

    kind: Kind
    rank: int
    tables: tuple[str, ...]

    @property
    def parts(self) -> frozenset[str]:
        named = (part.format(rank=self.rank) for part in self.kind.parts)
        return frozenset([*named, *(f"table {table}" for table in self.tables)])

    @property
    def silent(self) -> frozenset[int]:
        return frozenset(self.rank if rank is None else rank for rank in self.kind.silent)

    @property
    def expects(self) -> tuple[str, ...]:
        """The troubles that nodes are to say; those that there are."""
        if self.tables and not NEEDED.intersection(self.tables):
            return ()
        return tuple(name for name in self.kind.troubles if name in Trouble.__members__)


def may_overlap(one: Draw, other: Draw) -> bool:
    """Whether both can be made at once and every promise still stands.

    They touch different parts, a client still reaches a node that gives verdicts, no disk is given up whose queue has
    events, and one of them can wait for the other.
    """
    return (
        not one.parts & other.parts
        and not (one.kind.prepares and other.kind.prepares)
        and len(one.silent | other.silent) < NODES
        and not (one.kind.needs_ledger and other.kind.takes_ledger)
        and not (other.kind.needs_ledger and one.kind.takes_ledger)
    )


@dataclass(slots=True)
class Scene:
    """Where a fault is made. `epoch`: the lease's, before it is. `short`: as briefly as shows anything."""

    site: Site
    fault: Fault
    drawn: Draw
    rng: random.Random
    epoch: int
    short: bool

    @property
    def host(self) -> Host:
        return self.site.hosts[self.drawn.rank - 1]

    def make(self) -> None:
        """The whole fault. AssertionError: what must follow from it did not."""
        self.drawn.kind.make(self)
        self.fault.healed = now()

    def made(self) -> None:
        self.fault.made = now()

    def stay(self, low: float, high: float) -> None:
        """Leaves the fault for so many seconds."""
        time.sleep(low if self.short else self.rng.uniform(low, high))

    def stay_without_database(self, low: float, high: float) -> None:
        """The same; every fourth time for as long as a host takes to start again, unless `short`."""
        if not self.short and self.rng.random() < _LONG_OUTAGE_SHARE:
            low, high = _LONG_OUTAGE_S
        self.stay(low, high)

    def until_taken_over(self) -> None:
        """Until another node leads, and how long that took."""
        deadline = _TAKEOVER_S + (_OVERLAPPED_S if self.fault.overlaps else 0.0)
        at = until(lambda: self.site.takeover_after(self.epoch), "a takeover", deadline)
        assert at is not None
        # The database says when; by a clock that another fault may have set.
        self.fault.takeover_s = (now() if self.fault.overlaps else at) - self.fault.made
