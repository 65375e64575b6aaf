"""The node's copy of the ledger, kept up with its log, and all that its supervisor learns by looking there."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Any

from sqlalchemy import select

from api.config.settings import Settings
from api.ledger import permitted_keys, tables
from api.ledger.database import Database
from api.ledger.errors import LedgerError, LedgerUnavailable
from api.ledger.log import brief_reading
from api.licensing import UNWATCHED
from api.node.clock import Clock
from api.node.published import LedgerState, SnapshotState
from api.snapshot import SNAPSHOT_NAME, Follower, Position, open_snapshot, source_of
from api.supervisor.duties import retention
from api.supervisor.ledger_poll import LedgerPoll, PollResult
from api.supervisor.pace import Pace
from api.supervisor.permission import Permission
from api.supervisor.queueing import Queueing

#: How old what was read of the log's head may be for a beat.
_HEAD_FOR_S = 2.0


class Copy:
    """The node's snapshot, kept up with the log by a job of this process and by its beats."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, queueing: Queueing, pace: Pace) -> None:
        """Raises OSError and `sqlite3.Error`."""
        self._reconciled = queueing.reconciled
        # Until it has been read no silence counts: what other nodes have queued is not known yet.
        self.watch = UNWATCHED
        #: Up to when this process's own polls are known to the workers, with the watch that came before them.
        self.published_until: float | None = None
        self._publishing_until: float | None = None
        #: What the ledger last answered.
        self.ledger: LedgerState | None = None
        self.pace = pace
        self._timeout, self._isolated_max_age = settings.heartbeat_timeout, settings.isolated_max_age
        self._database, self._clock = database, clock
        self._ledger_poll, self._learning = LedgerPoll(), threading.Lock()
        self._head: tuple[float, int] | None = None
        #: Where the copy stood when a beat's look was sent, and whether that found something missing.
        self._asked_from: Position | None = None
        self._is_behind = False
        self.source = source_of(settings.database_url)
        self._snapshot = open_snapshot(settings.data_dir / SNAPSHOT_NAME)
        self._timekeeping = queueing.timekeeping(clock, self._snapshot.position)
        self._follower = Follower(database, self._snapshot, clock, queueing.holds)
        # What was copied before is known from the start on, the ledger away or not.
        self._licenses: int | None = self._snapshot.count(tables.licenses)
        #: Why it could not be written at the last poll.
        self.trouble: str | None = None
        #: Why the last poll of the ledger failed.
        self.ledger_trouble: LedgerUnavailable | None = None
        self.permission = Permission(settings.signing_keys)
        position = self._snapshot.position()
        if position is not None and position.complete and position.source == self.source:
            self.permission.learn(permitted_keys.load_from_snapshot(self._snapshot.rows))

    @property
    def waits_for(self) -> str | None:
        """Why the ledger must not take the place of the one that was copied."""
        return self._follower.objection

    @property
    def is_alone(self) -> bool:
        """Whether it has licenses, and the ledger shows none though its log tells of no deletion."""
        return self._follower.is_alone

    def may_lead(self) -> bool:
        """Whether this node can give verdicts, as far as the ledger is concerned."""
        return self.permission.is_given() and self.waits_for is None and self._clock.is_trusted

    # -- looking ------------------------------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Polls the ledger, whatever becomes of the copy; gives whether there is nothing to copy.

        Raises `LedgerError`, and what a copy raises that cannot be written.
        """
        self._timekeeping.look()
        position, sent = self._follower.standing(), time.monotonic()
        with brief_reading(self._database) as connection:
            result = self._ledger_poll.poll(connection, position)
        if result is None:
            return False
        self._learn(result, sent, time.monotonic())
        return self._stays(position, result, sent)

    def ask(self) -> tuple[str, dict[str, Any]]:
        """`failover.exchange.PiggybackQuery`: the same poll, in the message of a beat."""
        self._timekeeping.heed()
        self._asked_from = self._follower.standing()
        return self._ledger_poll.ask(self._asked_from)

    def receive(self, answer: Any, now: float, asked: float, answered: float) -> None:
        """`failover.exchange.PiggybackQuery`. A disk that takes nothing must not stop the beat."""
        result = self._ledger_poll.parse(answer, now)
        self._learn(result, asked, answered)
        try:
            self._is_behind = not self._stays(self._asked_from, result, asked) and self._clock.is_trusted
        except (sqlite3.Error, OSError) as error:
            self.trouble = str(error)

    def _learn(self, result: PollResult, sent: float, received: float) -> None:
        if result.at is not None:
            self._clock.sample(result.at, sent, received)
        with self._learning:
            if self.ledger is not None and sent < self.ledger.sent:
                return  # what was asked later has come before
            self.watch = result.watch(self._timeout, self._clock)
            self._ledger_poll.keep(result)
            if self._ledger_poll.keys is not None:
                self.permission.learn(self._ledger_poll.keys)
            self._head = (sent, result.head)
            keys, ledger_id = self._ledger_poll.keys, self._ledger_poll.ledger_id
            self.ledger = LedgerState(sent=sent, received=received, clock=result.at, keys=keys, ledger_id=ledger_id)

    def _stays(self, position: Position | None, result: PollResult, sent: float) -> bool:
        """Whether there is nothing to copy; then what was copied is all that there was at `sent`."""
        # A copy that bears a time which is not trusted would make it trusted at the next poll.
        if position is None or not result.stands or not self._clock.is_trusted:
            return False
        if not result.has_licenses and self._licenses:
            return False  # they are hidden, or gone: the follower finds out
        self._follower.stay(position, sent)
        return True

    # -- following ----------------------------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether it is time to poll the ledger, or the copy is known to lack something."""
        return self._is_behind or self.pace.is_due(None if self.ledger is None else self.ledger.sent)

    def follow(self) -> None:
        """Looks at the ledger where that is due, and catches up."""
        if not self.is_due:
            return
        try:
            self._follow_and_note()
            self.ledger_trouble = None
        except LedgerUnavailable as error:
            self.ledger_trouble = error
            raise

    def _follow_and_note(self) -> None:
        is_behind, self._is_behind = self._is_behind, False
        try:
            # The look comes first: a copy that is made anew takes its time, and this node answers meanwhile.
            if is_behind or not self.poll():
                self._follow()
            self.trouble = None
        except (sqlite3.Error, OSError) as error:
            self.trouble = str(error)
            raise
        except LedgerError as error:
            # Rows are written while the ledger is being read, whose errors all become its own.
            self.trouble = str(error.__cause__) if isinstance(error.__cause__, sqlite3.Error) else None
            raise

    def _follow(self) -> None:
        if not self._clock.is_trusted:
            return
        before = self.seq()
        anew = self._follower.poll()
        if anew:
            self._reconciled()
        if anew or self._licenses is None or self.seq() != before:
            self._licenses = self._snapshot.count(tables.licenses)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def before_publishing(self) -> None:
        """To be called before each time something is published: workers have read by now what was there last time."""
        self.published_until, self._publishing_until = self._publishing_until, self._polled_at()

    def _polled_at(self) -> float | None:
        """When the ledger was last asked. A copy that cannot be written keeps nobody from it."""
        if self.trouble is not None:
            return None if self.ledger is None else self.ledger.sent
        position = self._snapshot.position()
        return position.polled_at if position is not None and position.complete else None

    @property
    def head_seen(self) -> int:
        """Where the log was at the last look; 0 before there was one."""
        return 0 if self._head is None else self._head[1]

    def head(self) -> int:
        """Where the log is, as of a moment ago. Raises `LedgerError`."""
        if self._head is not None and time.monotonic() - self._head[0] < _HEAD_FOR_S:
            return self._head[1]
        with brief_reading(self._database) as connection:
            return int(connection.scalar(select(tables.log_head.c.seq)) or 0)

    def seq(self) -> int:
        """Up to where the log has been taken in; 0 while the copy is being made."""
        position = self._snapshot.position()
        return position.seq if position is not None and position.complete else 0

    def state(self) -> SnapshotState | None:
        """How far it is, for the workers to report; None while there is none."""
        position = self._snapshot.position()
        if position is None or not position.complete or self._licenses is None:
            return None
        return SnapshotState(position.seq, position.as_of, self._licenses)

    def forget_machines(self, now: float) -> None:
        """What the leader removes from the ledger at `now` (ledger time), and no event tells of."""
        self._snapshot.forget_machines(retention.machines_end_at(now, self._isolated_max_age))

    def close(self) -> None:
        self._snapshot.close()
