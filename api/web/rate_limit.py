"""Limits on failures: bad API keys, signatures and tokens, and unknown license keys. Never on success."""

from __future__ import annotations

from api.config.values import RateLimit
from api.node.failure_counts import FailureCounts
from api.server.addresses import counted_as


class FailureLimiter:
    """Counts failures per address (IPv6: per /64) and per presented key, for all workers of a node together."""

    def __init__(self, failures: FailureCounts, limit: RateLimit) -> None:
        self._failures = failures
        self._limit = limit

    def retry_after(self, address: str, presented: str | None) -> float | None:
        """Seconds until this address and this presented key may fail again; None where they still may."""
        waits = []
        for name in _names(address, presented):
            count, left = self._failures.count(name, self._limit.window_s)
            if count >= self._limit.count:
                waits.append(left)
        return max(waits, default=None)

    def failed(self, address: str, presented: str | None) -> None:
        for name in _names(address, presented):
            self._failures.failed(name, self._limit.window_s)


def _names(address: str, presented: str | None) -> list[str]:
    named = f"address {counted_as(address)}"
    return [named] if presented is None else [named, f"presented {presented}"]
