"""The license ledger's tables in memory: licenses with their machines, the log, and who may commit what.

`Books` is what a backup holds. Everything in it happens in one step, as in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from api.ledger.errors import LedgerRefused
from api.ledger.records import Batch, Event, Finding, LicenseRecord
from api.licensing import Holding
from api.supervisor.duties.watching import WatchRecord


class Row(NamedTuple):
    """A license as the ledger has it, and the place in the log of its last change."""

    holding: Holding
    seq: int


class Effect(NamedTuple):
    """What a leader did behind the fence."""

    epoch: int
    instance: str


@dataclass
class Books:
    """One state of the ledger. `by_key`: license ids by the hash of their key."""

    ledger_id: str
    generation: int = 1
    by_key: dict[str, str] = field(default_factory=dict)
    licenses: dict[str, Row] = field(default_factory=dict)
    log: list[Event] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)
    recorded_at: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    #: What the leader's watch found last.
    watch: WatchRecord | None = None

    def copy(self) -> Books:
        """A backup. The values are frozen; only what holds them is copied."""
        return Books(
            self.ledger_id,
            self.generation,
            dict(self.by_key),
            dict(self.licenses),
            list(self.log),
            dict(self.place),
            list(self.recorded_at),
            list(self.findings),
            list(self.effects),
            self.watch,
        )

    @property
    def head(self) -> int:
        """The last place in the log; the first is 1."""
        return len(self.log)

    def event_at(self, seq: int) -> str | None:
        """The id of the event at `seq`."""
        return self.log[seq - 1].event_id if 0 < seq <= len(self.log) else None

    def known(self, key_hash: str, event_id: str | None = None) -> LicenseRecord:
        """What an ask finds."""
        license_id = self.by_key.get(key_hash)
        holding, seq = (None, 0) if license_id is None else self.licenses[license_id]
        place = self.place.get(event_id or "")
        if place is None:
            return LicenseRecord(holding, seq=seq)
        event = self.log[place - 1]
        return LicenseRecord(holding, event.data, event.occurred_at, seq)

    def write(self, batch: Batch, now: float) -> int:
        """One commit; gives the log's new head. Raises `LedgerRefused` where an event is there already.

        Touches are left out: nothing is promised of them.
        """
        if any(event.event_id in self.place for event in batch.events):
            raise LedgerRefused("UniqueViolation")
        for event in batch.events:
            self.log.append(event)
            self.recorded_at.append(now)
            self.place[event.event_id] = len(self.log)
        for change in batch.changes:
            self.licenses[change.after.license.id] = Row(change.after, self.head)
        self.findings += batch.findings
        return self.head
