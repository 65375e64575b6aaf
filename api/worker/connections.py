"""The connections that one worker opens: few, since a hosted database counts them, and none that admins can use up."""

from __future__ import annotations

from pathlib import Path

from api.config.settings import Settings
from api.ids import new_id
from api.ledger.database import AcquirePolicy, Database
from api.ledger.store import ledger_on
from api.node.clock import Clock
from api.node.ledger_breaker import LedgerBreaker

#: What a node opens in all, and what of it the supervisor and admins have.
_NODE, _SUPERVISOR, _ADMINS = 5, 2, 1


class Connections:
    """The same ledger for four purposes. Connects at first use."""

    def __init__(self, settings: Settings, clock: Clock, breaker: LedgerBreaker) -> None:
        url, budget_s, writer = settings.database_url, settings.ledger_budget, new_id()
        policy = AcquirePolicy(
            budget_s, budget_s, lambda: breaker.isolated_since is not None, lambda: breaker.last_isolated
        )
        self.database = Database(url, pool_size=_pool_size(settings))
        #: For clients' calls.
        self.ledger = ledger_on(self.database, writer, clock, budget_s=budget_s, terms=policy)
        #: The same with less time for each statement.
        self.hurried = ledger_on(self.database, writer, clock, budget_s=budget_s, terms=policy, hurried=True)
        #: For polls of an isolated node, which no client waits for: it has the connections ready for when that is over.
        self.probe = ledger_on(self.database, new_id(), clock, terms=AcquirePolicy(not_before=policy.not_before))
        #: For what admins ask: nothing that they do takes a connection from the customers.
        self.admins = (
            self.database if self.database.is_sqlite else Database(url, pool_size=1, shared=_admins_lock(settings))
        )

    def close(self) -> None:
        self.database.close()
        self.admins.close()


def _pool_size(settings: Settings) -> int:
    return max(1, (_NODE - _SUPERVISOR - _ADMINS) // settings.workers)


def _admins_lock(settings: Settings) -> Path:
    return settings.data_dir / "admins-connection.lock"
