"""What a process's clock is held against besides its samples: the copy, the log, and the word of an operator."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from api.ledger import tables
from api.ledger.database import Database
from api.licensing import Act
from api.node.clock import Clock
from api.node.ledger_breaker import LedgerBreaker
from api.snapshot import Position, source_of

#: The event by which an operator says that the ledger's clock is right.
CLOCK_TRUSTED = "node.clock_trusted"
#: For how long an operator's word reaches processes that have just started.
_HEEDED_FOR_S = 60.0
#: How far back in the log calls of clients are looked for, which bear the time of the node that answered.
_LOOK_BACK = 200
_LATEST = 20


class Timekeeping:
    """One process's. `look` is to be called at each poll, before the ledger's clock is sampled."""

    def __init__(
        self, clock: Clock, database: Database, breaker: LedgerBreaker, copied: Callable[[], Position | None]
    ) -> None:
        """`copied`: where this node's copy stands."""
        self._clock = clock
        self._database = database
        self._breaker = breaker
        self._copied = copied
        self._source = source_of(database.url)
        self._heeded = 0.0

    def look(self) -> None:
        """Raises `LedgerError`."""
        self.heed()
        if self._clock.is_decided and not self._database.is_sqlite:
            return
        position = self._copied()
        if position is not None and (not position.complete or position.source != self._source):
            position = None
        if self._database.is_sqlite:
            self._clock.go_by_the_wall(None if self._clock.is_decided else self._newest(position))
            return
        if position is not None:
            self._clock.start_from(position.wall_skew, position.as_of)
        self._clock.witness_of(None if position is None else position.as_of, *self._latest_calls())

    def heed(self) -> None:
        """Applies an operator's word (`flask node trust-clock`) since the last look."""
        trusted_at = self._breaker.clock_trusted_at
        if trusted_at > self._heeded and self._clock.monotonic() - trusted_at < _HEEDED_FOR_S:
            self._clock.trust()
        self._heeded = max(trusted_at, self._heeded)

    def _newest(self, position: Position | None) -> float | None:
        """The newest moment that this embedded ledger, or the copy of it, knows of. What was recorded behind the copy

        is newer than that, whatever it says: an operator may have put the clock right in between.
        """
        log_head, events = tables.log_head.c, tables.events.c
        query = select(log_head.seq, events.recorded_at).select_from(
            tables.log_head.outerjoin(tables.events, events.seq == log_head.seq)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        moments = [] if row is None or row.recorded_at is None else [float(row.recorded_at)]
        if position is not None and (row is None or row.seq <= position.seq):
            moments.append(position.as_of)
        return max(moments, default=None)

    def _latest_calls(self) -> list[float]:
        """When nodes of this cluster, by their own time, last answered clients."""
        log_head, events = tables.log_head.c, tables.events.c
        query = (
            select(events.occurred_at)
            .where(events.seq > select(log_head.seq).scalar_subquery() - _LOOK_BACK)
            .where(events.type.in_([act.value for act in Act]), events.origin.is_(None))
            .order_by(events.seq.desc())
            .limit(_LATEST)
        )
        with self._database.reading() as connection:
            return [float(at) for at in connection.scalars(query)]
