"""How long everything takes, in seconds. The constructor refuses numbers that contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, fields

from failover.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All durations of one cluster; every node must have the same. Raises `ConfigError` with all faults at once."""

    #: How often a node beats, and the leader renews.
    heartbeat_interval: float = 1.5
    #: How long a lease lasts after its renewal, and how old a beat may be.
    heartbeat_timeout: float = 6.0
    #: How long the returning primary must have been healthy, and the least time between two failbacks.
    failback_delay: float = 30.0
    #: How often a node looks at the lease, and tries a renewal again that failed.
    poll: float = 0.5
    #: By how much a leader stops trusting its lease before it ends.
    margin: float = 0.5
    #: How much later each rank after the second tries for a free lease.
    stagger: float = 1.0
    #: How long the other ranks leave a free lease to rank 1 once the database is back.
    probe_interval: float = 2.0

    def __post_init__(self) -> None:
        if faults := self._faults():
            raise ConfigError(faults)

    @property
    def trust(self) -> float:
        """How long after a renewal was sent its sender may trust it."""
        return self.heartbeat_timeout - self.margin

    @property
    def deploy_overlap(self) -> float:
        """How long two processes of one node may beat side by side, as they do in a rolling deploy."""
        return deploy_overlap(self.failback_delay, self.heartbeat_timeout)

    def _faults(self) -> list[str]:
        positive = [field.name for field in fields(self) if field.name not in ("failback_delay", "probe_interval")]
        faults = [f"{name} must be more than 0" for name in positive if not getattr(self, name) > 0]
        faults += [
            f"{n} must not be negative" for n in ("failback_delay", "probe_interval") if not getattr(self, n) >= 0
        ]
        rules = (
            (
                self.trust >= 2 * self.heartbeat_interval,
                "heartbeat_timeout less margin must leave room for two renewals (2 x heartbeat_interval)",
            ),
            (self.heartbeat_interval >= self.poll, "heartbeat_interval must be at least poll"),
            (self.stagger >= self.poll, "stagger must be at least poll, or two ranks try at once"),
        )
        return faults + [fault for holds, fault in rules if not holds]


def deploy_overlap(failback_delay: float, heartbeat_timeout: float) -> float:
    """Longer than a deploy runs the old process beside the new one: hosts that do give it about a minute."""
    return 2 * failback_delay + heartbeat_timeout
