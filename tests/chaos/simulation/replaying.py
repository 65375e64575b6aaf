"""The real handler of replay, `api.supervisor.replay.LedgerReplay`, on the simulated ledger."""

from __future__ import annotations

from typing import Any

from api.ledger.records import LicenseQuery
from api.node.clock import Clock
from api.supervisor.replay import LedgerReplay
from tests.chaos.simulation.network import BULK, READ
from tests.chaos.simulation.remote import Remote


class _Patient:
    """A ledger whose transactions may take their time: nobody waits for them."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def transaction(self, asks: list[LicenseQuery]) -> Any:
        """As `Remote.transaction`."""
        return self._remote.transaction(asks, BULK)

    def append(self, batch: Any) -> None:
        """As `Remote.append`."""
        self._remote.append(batch)


class Handler(LedgerReplay):
    """For one process."""

    def __init__(self, remote: Remote, node: str, clock: Clock) -> None:
        ledger: Any = _Patient(remote)
        super().__init__(ledger, node, clock)
        self._remote = remote

    def _key_hashes(self, licenses: set[str]) -> dict[str, str]:
        books = self._remote.database.books
        read = lambda: {id: key for key, id in books.by_key.items() if id in licenses}  # noqa: E731 - what travels
        return self._remote.ask(read, READ)
