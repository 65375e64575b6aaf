"""Products, policies, licenses and machines as frozen values. No I/O, no clock.

Times are Unix seconds in ledger time. A `None` limit means there is none.
"""

from __future__ import annotations

import math
import uuid
from typing import Literal

import msgspec

from api.licensing.codes import Act, Code

DAY = 86_400.0
#: The most uses that are counted: what every client's JSON holds exactly.
MAX_USES = 2**53 - 1

Status = Literal["active", "suspended", "banned"]
ExpiryBasis = Literal["creation", "first_activation", "first_validation"]
ExpiryStrategy = Literal["restrict", "maintain"]
Overage = Literal["none", "1.25x", "1.5x", "2x", "always"]
Cull = Literal["deactivate", "keep"]

_OVERAGE_FACTOR: dict[str, float] = {"none": 1.0, "1.25x": 1.25, "1.5x": 1.5, "2x": 2.0, "always": math.inf}
_MACHINE_NAMESPACE = uuid.UUID("6f1c2f6e-0b1b-5c59-9a3e-5d0c6f6b7a10")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The rules a license is sold under. Field names and meanings are the contract's (section 4)."""

    id: str
    product: str
    name: str
    duration_days: int | None = None
    expiry_basis: ExpiryBasis = "creation"
    expiry_strategy: ExpiryStrategy = "restrict"
    grace_days: int = 0
    max_machines: int | None = None
    floating: bool = False
    require_fingerprint: bool = False
    overage: Overage = "none"
    machine_heartbeat_s: int | None = None
    cull: Cull = "deactivate"
    check_in_days: int | None = None
    max_uses: int | None = None
    entitlements: tuple[str, ...] = ()
    versions: str | None = None
    offline_ttl_s: int | None = 604_800
    isolated_activation: bool = True
    moves_per_30d: int | None = None
    release_stale_days: int | None = None


class License(msgspec.Struct, frozen=True, kw_only=True):
    """One license with what it inherits from its policy already resolved.

    `max_machines`, `max_uses` and `entitlements` are the effective values: the license's own, else the policy's.
    """

    id: str
    policy: Policy
    status: Status = "active"
    expires_at: float | None = None
    max_machines: int | None = None
    max_uses: int | None = None
    entitlements: tuple[str, ...] = ()
    uses: int = 0
    checked_in_at: float | None = None
    created_at: float = 0.0
    last_seen_at: float | None = None

    @property
    def valid_until(self) -> float | None:
        """When it stops being valid: the expiry, plus the grace where the policy maintains."""
        if self.expires_at is None:
            return None
        return self.expires_at + self.grace_s

    @property
    def grace_s(self) -> float:
        return self.policy.grace_days * DAY if self.policy.expiry_strategy == "maintain" else 0.0

    @property
    def seat_limit(self) -> float:
        """The most machines it may hold, overage included (floored: 3 seats at 1.25x are 3)."""
        if self.max_machines is None:
            return math.inf
        factor = _OVERAGE_FACTOR[self.policy.overage]
        return math.inf if factor == math.inf else math.floor(self.max_machines * factor)

    @property
    def check_in_s(self) -> float | None:
        """How long it may be silent between two check-ins; None: it need not check in."""
        return None if self.policy.check_in_days is None else self.policy.check_in_days * DAY

    @property
    def last_check_in_at(self) -> float:
        """Its last check-in; its creation counts as the first."""
        return self.created_at if self.checked_in_at is None else self.checked_in_at


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that holds, or once held, a seat. `excess`: a seat too many, kept at replay and not held against it.

    `seat_at`: when it last took its seat or gave it up; `culled`: it was the leader that took the seat away.
    """

    id: str
    license_id: str
    fingerprint: str
    name: str | None = None
    platform: str | None = None
    active: bool = True
    excess: bool = False
    heartbeat_at: float | None = None
    last_seen_at: float | None = None
    created_at: float = 0.0
    seat_at: float | None = None
    culled: bool = False


class Watch(msgspec.Struct, frozen=True):
    """The span of ledger time in which pings and check-ins were being taken; silence outside it does not count.

    `since`: when the cluster had last been in trouble; `until`: up to when an isolated node knows of them.
    """

    since: float = -math.inf
    until: float = math.inf


#: There was no trouble, and nothing is unknown.
ALWAYS = Watch()
#: Whether there was trouble is not known yet: no silence counts.
UNWATCHED = Watch(until=0.0)


#: A license keeps at most so many tombstones of machines that left without having come: a client can name any number.
MOST_NEVER_CAME = 200
#: With so many machines without a seat behind it a license brings no new one, whatever its policy says: each leaves a
#: row for a month. It is 160 new machines a day, for each of which another one has left.
MOST_DEPARTED = 5_000


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """All that one decision needs to know of a license, read at one moment.

    `seats` counts its active machines and `excess` those among them that are tolerated; `machines` has those that
    the calls at hand name, active or not; `arrivals` counts the fingerprints first seen within 30 days, as far as the
    policy's limit needs it, and `never_came` those that are only known to have left, up to `MOST_NEVER_CAME`.
    `departed` counts all machines without a seat, up to `MOST_DEPARTED`, where the call names one that has none.
    `stale` lists active machines, longest unseen first, where the policy lets an activation take such a seat.
    """

    license: License
    seats: int = 0
    excess: int = 0
    arrivals: int = 0
    never_came: int = 0
    departed: int = 0
    machines: dict[str, Machine] = msgspec.field(default_factory=dict)
    stale: tuple[Machine, ...] = ()

    def active(self, fingerprint: str | None) -> Machine | None:
        machine = self.machines.get(fingerprint) if fingerprint is not None else None
        return machine if machine is not None and machine.active else None


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client asked, as far as the decision cares. What is `None` was not sent and is not checked."""

    act: Act
    fingerprint: str | None = None
    product: str | None = None
    version: str | None = None
    entitlements: tuple[str, ...] = ()
    name: str | None = None
    platform: str | None = None
    increment: int = 1
    ttl: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one decision, and what the license and its machines are after it.

    `holding` is the very object that went in where nothing changed; `None` for an unknown key.
    """

    code: Code
    valid: bool
    detail: str
    holding: Holding | None = None
    machine: Machine | None = None


def machine_id(license_id: str, fingerprint: str) -> str:
    """The id every node gives this machine, so that two nodes that never spoke agree on it."""
    return str(uuid.uuid5(_MACHINE_NAMESPACE, f"{license_id}\x1f{fingerprint}"))
