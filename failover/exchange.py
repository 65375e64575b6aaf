"""One message a beat: a process reports its state, and gets the state of the others and of the lease.

A database may be paid by what it sends: the process says what it knows already, and gets only what differs. Postgres
only: what stands in a file of this machine may be read as often as one likes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import text

from failover import sql
from failover.database import Storage
from failover.heartbeat import Beat, Report, SqlHeartbeatStore
from failover.lease import LEASE_NAME
from failover.model import Identity, Lease

_log = logging.getLogger("protecao.failover")
#: A beat that is so old by the database's clock is no longer sent with its age.
_SILENT_S = 60.0
_UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """What came back between two monotonic moments: all last beats, and the lease; None: no process ever led."""

    beats: Sequence[Beat]
    lease: Lease | None
    asked: float
    answered: float


class Exchange(Protocol):
    """A beat in one message. May raise `StoreUnavailable` or `StoreBusy`."""

    def beat(self, identity: Identity, report: Report) -> BeatAnswer:
        """Writes the beat of `identity` and reads the others'."""


class PiggybackQuery(Protocol):
    """A question of the host's own that travels with each beat."""

    def ask(self) -> tuple[str, dict[str, Any]]:
        """A scalar expression in SQL that gives JSON, and its parameters."""

    def receive(self, answer: Any, now: float, asked: float, answered: float) -> None:
        """Takes the decoded answer to the question sent at `asked` (monotonic); `now`: the database's time."""


class SqlExchange:
    """Beats of one process in tables `heartbeats` and `lease` on Postgres. For one thread at a time."""

    def __init__(
        self, storage: Storage, piggyback: PiggybackQuery | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage, self._piggyback, self._monotonic = storage, piggyback, monotonic
        self._known = _Known()
        self._lease: Lease | None = None

    def beat(self, identity: Identity, report: Report) -> BeatAnswer:
        """One message, unless this process has no row yet."""
        try:
            answer = self._exchange(identity, report, self._piggyback)
        except Exception as error:
            # What keeps the question from being answered, a lock or a right that is missing, must not stop the beat.
            if self._piggyback is None or not _was_answered(error):
                raise
            _log.debug("a beat goes without its question", extra={"reason": str(error)})
            answer = self._exchange(identity, report, None)
        if all(beat.identity.instance != identity.instance for beat in answer.beats):
            SqlHeartbeatStore(self._storage).write(identity, report)
            answer = self._exchange(identity, report, None)
        return answer

    def _exchange(self, identity: Identity, report: Report, piggyback: PiggybackQuery | None) -> BeatAnswer:
        question, parameters = piggyback.ask() if piggyback else ("NULL", {})
        statement = sql.exchange(question)
        reported = {name: getattr(report, name) for name in Report.__dataclass_fields__}
        values = {
            "instance": identity.instance,
            "node": identity.node,
            "rank": identity.rank,
            "name": LEASE_NAME,
            **reported,
        }
        values |= {"digest": self._known.digest, "silent_until": self._known.silent_until} | self._lease_known()
        asked = self._monotonic()
        # Each message stands alone there, which is all the transaction that one message needs.
        with self._storage.reading() as connection:
            answer = connection.execute(text(statement), values | parameters).scalar_one()
        answered = self._monotonic()
        now, beats, lease, more = json.loads(answer)
        self._known.update(beats, now)
        self._lease = self._lease_of(lease, now)
        if piggyback is not None:
            piggyback.receive(more, now, asked, answered)
        return BeatAnswer(self._known.beats(now), self._lease, asked, answered)

    def _lease_known(self) -> dict[str, Any]:
        lease = self._lease
        if lease is None:
            return {"holder": _UNKNOWN, "epoch": 0, "acquired_at": 0.0}
        return {"holder": lease.holder.instance, "epoch": lease.epoch, "acquired_at": lease.acquired_at}

    def _lease_of(self, answer: list[Any] | None, now: float) -> Lease | None:
        """`answer`: when the lease ends, and its whole row where it is not the known one."""
        if answer is None:
            return None
        expires_at, *changed = answer
        if changed:
            holder, node, rank, epoch, acquired_at = changed
            identity = Identity(holder, node, rank)
        elif self._lease is not None:
            identity, epoch, acquired_at = self._lease.holder, self._lease.epoch, self._lease.acquired_at
        else:
            return None
        return Lease(identity, epoch, acquired_at, expires_at - now, expires_at <= sql.RESIGNED, expires_at)


def _was_answered(error: BaseException | None) -> bool:
    """Whether the database itself answered with this error, rather than the connection broke."""
    while error is not None:
        if getattr(getattr(error, "orig", error), "pgcode", None) is not None:
            return True
        error = error.__cause__
    return False


class _Known:
    """The rows of `heartbeats` as they were last read, and the digest by which the database sends only changes."""

    def __init__(self) -> None:
        #: Of the rows as they are, but for the moments of beats after `silent_until`; unknown at first.
        self.digest = _UNKNOWN
        self.silent_until = 0.0
        self._rows: list[dict[str, Any]] = []

    def update(self, answer: list[Any], now: float) -> None:
        """`answer`: a digest and all rows in the order of their instances, or none and the moments that may change."""
        digest, rows = answer
        if digest is None:
            moments = iter(rows or ())
            self._rows = [
                {**row, "beat_at": next(moments) if row["beat_at"] > self.silent_until else row["beat_at"]}
                for row in self._rows
            ]
            return
        self._rows = [dict(zip(sql.BEAT_COLUMNS, row, strict=True)) for row in rows or ()]
        silent = max((row["beat_at"] for row in self._rows if row["beat_at"] < now - _SILENT_S), default=0.0)
        # The digest is of the rows with the former limit: with another limit all rows are sent once more.
        self.digest = digest if silent == self.silent_until else _UNKNOWN
        self.silent_until = silent

    def beats(self, now: float) -> list[Beat]:
        """Every process's last beat at `now` (the database's time), by rank, the freshest first."""
        beats = [_beat(row, now) for row in self._rows]
        return sorted(beats, key=lambda beat: (beat.identity.rank, -beat.beat_at))


def _beat(row: dict[str, Any], now: float) -> Beat:
    oldest_at = row["queue_oldest_at"]
    reported: dict[str, Any] = {name: row.get(name) for name in Report.__dataclass_fields__}
    return Beat(
        identity=Identity(row["instance"], row["node"], row["rank"]),
        age_s=now - row["beat_at"],
        beat_at=row["beat_at"],
        started_at=row["started_at"],
        report=Report(**reported | {"queue_oldest_s": None if oldest_at is None else now - oldest_at}),
    )
