"""What a run consists of, drawn from its seed: the cluster, its durations, the faults and the calls, as plain values.

Everything else that is random (delays above all) comes from streams of their own, so that leaving a fault or a call
out, as the search for the shortest failing trace does, leaves the rest as it was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

from api.licensing import DAY, Act, Call, Holding, License, Policy
from failover import Config
from failover.errors import ConfigError
from tests.chaos.simulation.disk import EPOCH

#: How long faults and calls go on, in virtual seconds.
TURMOIL_S = 45.0
_FINGERPRINTS = ("pc", "laptop", "server")
_SECONDS = 1.0 / DAY
#: A policy has whole days, and a run lasts some minutes.
_CHECK_IN = cast(int, 12 * _SECONDS)


@dataclass(frozen=True)
class Item:
    """One fault or call: when it begins, what it is, whom it meets, how long it lasts; `by`: how far a clock is set."""

    at: float
    kind: str
    node: int = 0
    lasts: float = 0.0
    call: Call | None = None
    key: str = ""
    number: int = 0
    by: float = 0.0

    def __str__(self) -> str:
        if self.call is not None:
            more = f" {self.call.fingerprint}" if self.call.fingerprint else ""
            return f"call {self.number}: {self.call.act}{more} of {self.key} from node {self.node} on"
        lasts = f" for {self.lasts:.2f} s" if self.lasts else ""
        by = f" by {self.by:+.2f} s" if self.by else ""
        return f"{self.kind} {self.key or f'node {self.node}'}{by}{lasts}"


@dataclass(frozen=True)
class Scenario:
    """`seed` gives it and all the delays. `sql`: the real statements; `files`: the real queue."""

    seed: str
    nodes: int
    config: Config
    items: tuple[Item, ...]
    sql: bool = False
    files: bool = False
    #: How many messages in a hundred are slow, and how many seconds a node's disk may take.
    slow: int = 7
    disk_s: float = 0.02

    @property
    def sets_the_ledgers_clock(self) -> bool:
        """Whether that is one of its faults."""
        return any(item.kind == LEDGER_CLOCK for item in self.items)

    @property
    def settle_s(self) -> float:
        """How long everything may take to be well again once the faults are over."""
        return 3 * self.config.heartbeat_timeout + 3 * self.config.failback_delay + 8.0


#: Some of these contradict themselves; which, is for `Config` to say.
_CONFIGS = (
    {"failback_delay": 4.0},
    {"heartbeat_interval": 0.6, "heartbeat_timeout": 2.4, "failback_delay": 2.0, "poll": 0.3, "margin": 0.3},
    {"heartbeat_interval": 1.0, "heartbeat_timeout": 3.0, "failback_delay": 3.0, "stagger": 0.7},
    {"heartbeat_interval": 2.0, "heartbeat_timeout": 2.0, "failback_delay": 3.0},
    {"heartbeat_interval": 1.0, "heartbeat_timeout": 1.2, "failback_delay": 3.0},
    {"heartbeat_interval": 1.5, "heartbeat_timeout": 2.5, "failback_delay": 3.0, "margin": 0.2},
)
_FAULTS = (
    ("crash", 4),
    ("vanish", 2),
    ("pause", 4),
    ("cut out", 2),
    ("cut back", 2),
    ("cut off", 4),
    ("terminate", 2),
    ("deploy", 2),
    ("supervisor dies", 2),
    ("database stops", 3),
    ("database freezes", 3),
    ("database restored", 2),
    ("table revoked", 2),
    ("rule added", 1),
    ("switch over", 1),
    ("promote", 1),
    ("beats emptied", 1),
)
#: In this part of the scenarios clocks are set, by up to so many seconds.
_WITH_CLOCKS = 0.4
LEDGER_CLOCK = "ledger clock"
_JUMPS_S = (1.8, 5.0, 20.0, 900.0, 4 * 365 * DAY)
_ACTS = (
    (Act.VALIDATE, 6),
    (Act.PING, 5),
    (Act.USAGE, 4),
    (Act.ACTIVATE, 4),
    (Act.DEACTIVATE, 2),
    (Act.CHECK_IN, 2),
)
_ADMIN = ("ban", "suspend", "reinstate")


def draw(seed: str, *, sql: bool = False, files: bool = False) -> Scenario:
    """The scenario of `seed`."""
    source = random.Random(seed)
    config = _config(source)
    nodes = source.choice((2, 3, 3))
    items = [*_faults(source, nodes, config), *_calls(source, nodes), *_admins(source), *_clocks(seed, nodes)]
    slow, disk_s = source.choice((3, 7, 30)), source.choice((0.02, 0.02, 0.5))
    in_order = tuple(sorted(items, key=lambda item: item.at))
    return Scenario(seed, nodes, config, in_order, sql, files, slow, disk_s)


def licenses() -> dict[str, Holding]:
    """What the vendor has sold, by key; the keys' hashes are the keys here."""
    base: dict[str, Any] = {"product": "app", "offline_ttl_s": None}
    policies = {
        "locked": Policy(id="locked", name="locked", max_machines=1, machine_heartbeat_s=9, **base),
        "floating": Policy(id="floating", name="floating", max_machines=2, floating=True, overage="1.5x", **base),
        "counted": Policy(id="counted", name="counted", max_uses=60, **base),
        "starting": Policy(id="starting", name="starting", expiry_basis="first_activation", duration_days=3, **base),
        "checked": Policy(id="checked", name="checked", check_in_days=_CHECK_IN, **base),
        "strict": Policy(id="strict", name="strict", max_machines=2, isolated_activation=False, **base),
        "revoked": Policy(id="revoked", name="revoked", max_machines=2, **base),
        "short": Policy(id="short", name="short", **base),
    }
    ends = {"short": EPOCH + 0.5 * TURMOIL_S}
    return {
        name: Holding(
            license=License(
                id=f"license-{name}",
                policy=policy,
                max_machines=policy.max_machines,
                max_uses=policy.max_uses,
                created_at=EPOCH,
                expires_at=ends.get(name),
            )
        )
        for name, policy in policies.items()
    }


def _config(source: random.Random) -> Config:
    while True:
        try:
            return Config(**source.choice(_CONFIGS))
        except ConfigError:
            continue


def _faults(source: random.Random, nodes: int, config: Config) -> list[Item]:
    kinds, weights = zip(*_FAULTS, strict=True)
    items, at = [], source.uniform(2.0, 8.0)
    density = source.choice((1.5, 3.0, 6.0))
    while at < TURMOIL_S:
        kind = source.choices(kinds, weights)[0]
        longest = source.choice((0.5, 2.5, 2 * config.heartbeat_timeout, 15.0))
        items.append(Item(at, kind, source.randrange(nodes) + 1, source.uniform(0.1, longest)))
        at += source.expovariate(1.0 / density)
    return items


def _calls(source: random.Random, nodes: int) -> list[Item]:
    acts, weights = zip(*_ACTS, strict=True)
    keys = [*licenses(), "unknown"]
    items: list[Item] = []
    at = 0.5
    while at < TURMOIL_S:
        act, key = source.choices(acts, weights)[0], source.choice(keys)
        fingerprint: str | None = source.choice(_FINGERPRINTS)
        if act in (Act.USAGE, Act.CHECK_IN) or (act is Act.VALIDATE and source.random() < 0.3):
            fingerprint = None
        increment = source.randint(1, 3) if act is Act.USAGE else 1
        call = Call(act=act, fingerprint=fingerprint, increment=increment)
        items.append(Item(at, "call", source.choice((1, 1, 1, *range(1, nodes + 1))), 0.0, call, key, len(items)))
        at += source.expovariate(6.0)
    return items


def _admins(source: random.Random) -> list[Item]:
    moments = sorted(source.uniform(3.0, TURMOIL_S) for _ in range(4))
    return [Item(at, source.choice(_ADMIN), key="revoked", number=1000 + n) for n, at in enumerate(moments)]


def _clocks(seed: str, nodes: int) -> list[Item]:
    """The ledger's clock or those of nodes, set forward and back, for good or a while; from a stream of its own.

    Not both by much: of two clocks that are wrong at once, nobody can tell.
    """
    source = random.Random(f"{seed}/clocks")
    if source.random() >= _WITH_CLOCKS:
        return []
    items, at = [], source.uniform(2.0, 10.0)
    kind = source.choice((LEDGER_CLOCK, LEDGER_CLOCK, "wall clock"))
    while at < TURMOIL_S:
        by = source.choice((-1.0, 1.0)) * source.uniform(0.1, 1.0) * source.choice(_JUMPS_S)
        lasts = source.choice((0.0, source.uniform(0.5, 15.0)))
        items.append(Item(at, kind, source.randrange(nodes) + 1, lasts, by=by))
        at += source.expovariate(1.0 / source.choice((4.0, 12.0)))
    return items
