"""What happened, as it was seen: each logical check of each client, each fault. Times are Unix seconds."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_OFFSET = time.time() - time.monotonic()


def now() -> float:
    """The run's time: this machine's at its start, carried on by the monotonic clock. Nobody sets it."""
    return _OFFSET + time.monotonic()


def run_time(wall: float) -> float:
    """The run's time of `wall`, a moment by the clock that this machine and the database have now.

    A virtual machine's clock is set while it runs (by 75 s, once, in the middle of a run): then the two differ.
    """
    return wall - (time.time() - now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One walk of the list of nodes, from when the client wanted to know until it knew, or gave up.

    `expected`: whether the license is good, None where only the whole history tells. `tried`: what each server that
    did not decide said instead. `event_id`: the log's, as the answer names it. An unanswered check has no `node`, and
    the client's own word for `code`.
    """

    client: str
    act: str
    license_id: str
    fingerprint: str | None
    request_id: str
    expected: bool | None
    began: float
    ended: float
    tried: tuple[str, ...] = ()
    node: str | None = None
    code: str | None = None
    valid: bool = False
    durability: str | None = None
    as_of: float = 0.0
    event_id: str | None = None

    @property
    def answered(self) -> bool:
        return self.node is not None

    @property
    def took(self) -> float:
        return self.ended - self.began


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault: prepared at `began`, `made`, its cause gone at `healed`, all well at `ended`.

    `takeover_s`: from when it was made until another node led. `overlaps`: the kind of the fault that was made at the
    same time. `skew_s`: how far ahead the database's clock was. `license_id`: whose alone the trouble was.
    """

    kind: str
    began: float
    made: float = 0.0
    healed: float = 0.0
    ended: float = 0.0
    takeover_s: float | None = None
    note: str = ""
    overlaps: str | None = None
    skew_s: int = 0
    license_id: str | None = None
    #: Names of troubles of which nodes are to say one while it lasts; none: nobody is to see to it.
    expects: tuple[str, ...] = ()

    def overlapped(self, other: Fault) -> bool:
        """Whether there was a moment at which both were made and neither had healed."""
        return max(self.made, other.made) < min(self.healed, other.healed)


@dataclass(slots=True)
class Suspension:
    """An admin's doing: a license was suspended at some moment of `from_`, and reinstated at some moment of `to`."""

    license_id: str
    from_: tuple[float, float]
    to: tuple[float, float] = (float("inf"), float("inf"))


@dataclass(slots=True, kw_only=True)
class Sighting:
    """A node said that it was in this trouble, each time it was asked from `first` to `last`."""

    node: str
    sentence: str
    first: float
    last: float


@dataclass(slots=True, kw_only=True)
class Attack:
    """From when to when attackers were at work, and by kind how often they were answered what."""

    began: float
    ended: float = float("inf")
    answers: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class History:
    """All of a run. Many threads add to it."""

    checks: list[Check] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    suspensions: list[Suspension] = field(default_factory=list)
    #: From when to when nobody can say whether the toggled license is suspended.
    doubts: list[tuple[float, float]] = field(default_factory=list)
    #: By request id: the uses that a client asked for and was told are counted, each of them once.
    uses: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: (license, fingerprint): whether its seat was taken, by the last answer to activate or deactivate.
    seats: dict[tuple[str, str], bool] = field(default_factory=dict)
    #: What nodes said was wrong with them.
    sightings: list[Sighting] = field(default_factory=list)
    attack: Attack | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, check: Check) -> None:
        with self.lock:
            self.checks.append(check)

    def write(self, path: Path) -> None:
        """One JSON object a line: faults, suspensions, troubles, checks."""
        kinds: dict[str, list[Any]] = {
            "fault": self.faults,
            "suspension": self.suspensions,
            "trouble": self.sightings,
            "check": self.checks,
        }
        with path.open("w", encoding="utf-8") as file:
            for kind, found in kinds.items():
                for each in found:
                    file.write(json.dumps({"kind": kind, "of": asdict(each)}) + "\n")
