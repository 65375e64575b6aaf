"""Heartbeats: each process writes its own row and reads all the others, with ages by the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from failover import sql
from failover.database import Storage
from failover.model import Identity, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a process says about itself. `queue_oldest_s`: age of the oldest row in its queue; None: no row.

    `settings_digest`: the host's own, of what all processes must have alike; None from a process that gives none.
    """

    role: str
    state: str
    url: str | None = None
    version: str = ""
    applied_seq: int = 0
    queue: int = 0
    queue_oldest_s: float | None = None
    settings_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The last report of a process, `age_s` seconds ago. `beat_at`, `started_at`: by the database's clock.

    As a store gives it, the age is by that clock too, which can be set; `failover.liveness.BeatWatch` knows better.
    """

    identity: Identity
    age_s: float
    beat_at: float
    started_at: float
    report: Report

    def is_fresh(self, timeout: float) -> bool:
        """Whether it is at most `timeout` seconds old. One of a moment to come may be of any age."""
        return 0.0 <= self.age_s <= timeout

    @property
    def may_lead(self) -> bool:
        """One that is STARTING cannot do its work yet, and one that is STOPPING not much longer."""
        return self.report.state not in (State.STARTING, State.STOPPING)


class HeartbeatStore(Protocol):
    """Where heartbeats are kept. Every method may raise `StoreUnavailable` or `StoreBusy`."""

    def write(self, identity: Identity, report: Report) -> None:
        """Records a beat of `identity` at this moment."""

    def read(self) -> Sequence[Beat]:
        """Every process's last beat, by rank, the freshest first."""

    def forget(self, beats: Sequence[Beat]) -> None:
        """Removes the rows of processes that have long gone, but for those that have beaten since these beats."""


class SqlHeartbeatStore:
    """Heartbeats as rows of table `heartbeats`, one per process."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, identity: Identity, report: Report) -> None:
        """Inserts or updates this process's row; a table that was emptied is filled again."""
        reported = {name: getattr(report, name) for name in Report.__dataclass_fields__}
        with self._storage.writing() as connection:
            statement = sql.statement(sql.BEAT, self._storage.is_sqlite)
            connection.execute(
                statement, {"instance": identity.instance, "node": identity.node, "rank": identity.rank, **reported}
            )

    def read(self) -> Sequence[Beat]:
        """All rows, by rank, the freshest first."""
        with self._storage.reading() as connection:
            found = connection.execute(sql.statement(sql.BEATS, self._storage.is_sqlite)).mappings().all()
        return [
            Beat(
                identity=Identity(row["instance"], row["node"], row["rank"]),
                age_s=float(row["age_s"]),
                beat_at=row["beat_at"],
                started_at=row["started_at"],
                report=Report(**{name: row[name] for name in Report.__dataclass_fields__}),
            )
            for row in found
        ]

    def forget(self, beats: Sequence[Beat]) -> None:
        """Deletes the rows that are still these."""
        given = [{"instance": beat.identity.instance, "beat_at": beat.beat_at} for beat in beats]
        if given:
            with self._storage.writing() as connection:
                connection.execute(sql.statement(sql.FORGET_BEAT, self._storage.is_sqlite), given)


class PrimaryHealth:
    """Since when rank 1 has been beating without a gap, as this node observed it. A new process starts anew.

    One that may not lead is not healthy.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._primary: Identity | None = None
        self._since: float | None = None
        self._beat_at: float | None = None

    def observe(self, beats: Sequence[Beat], now: float) -> None:
        """Takes in the beats as a `BeatWatch` knows them at `now` (monotonic)."""
        able = [beat for beat in beats if beat.identity.rank == 1 and beat.may_lead]
        fresh = [beat for beat in able if beat.is_fresh(self._timeout)]
        if not fresh:
            self._primary = self._since = self._beat_at = None
            return
        newest = max(fresh, key=lambda beat: (beat.started_at, beat.identity.instance))
        if newest.identity != self._primary:
            self._primary, self._since = newest.identity, now
        self._beat_at = now - newest.age_s

    @property
    def primary(self) -> Identity | None:
        """The process of rank 1 that beats; the youngest, while a deploy runs two."""
        return self._primary

    @property
    def healthy_since(self) -> float | None:
        """Since when (monotonic); None while it does not beat."""
        return self._since

    def age(self, now: float) -> float:
        """Seconds since its last beat at `now`; infinite where there was none."""
        return float("inf") if self._beat_at is None else now - self._beat_at


def doubled(beats: Sequence[Beat], timeout: float) -> dict[int, tuple[str, ...]]:
    """The ranks that several live nodes say are theirs, with those nodes. One that signed off is no rival."""
    nodes: dict[int, set[str]] = {}
    for beat in beats:
        if beat.is_fresh(timeout) and beat.report.state != State.STOPPING:
            nodes.setdefault(beat.identity.rank, set()).add(beat.identity.node)
    return {rank: tuple(sorted(names)) for rank, names in nodes.items() if len(names) > 1}


def youngest_alive(beats: Sequence[Beat], timeout: float) -> dict[str, Beat]:
    """The live process of each node that started last: while a deploy runs two, it is the one that stays."""
    alive = [beat for beat in beats if beat.is_fresh(timeout) and beat.report.state != State.STOPPING]
    return {beat.identity.node: beat for beat in sorted(alive, key=lambda beat: beat.started_at)}
