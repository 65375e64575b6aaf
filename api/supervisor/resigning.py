"""Resigns a lease that no process of its node supervises any more."""

from __future__ import annotations

from api import logs
from api.config.settings import Settings
from failover import SqlLeaseStore
from failover.database import Database
from failover.session import DEFAULT_SCHEMA

_log = logs.get("supervision")


def resign(settings: Settings, instance: str) -> None:
    """Resigns the lease where a process of this instance held it and none goes on with it; a failure is only logged."""
    leases = Database(settings.database_url, schema=DEFAULT_SCHEMA)
    try:
        store = SqlLeaseStore(leases)
        held = store.watch()
        if held is not None and held.holder.instance == instance and store.resign(held.holder, held.epoch):
            _log.info("the lease is resigned", extra={"node": held.holder.node, "epoch": held.epoch})
    except Exception as error:  # an interpreter that ends may refuse even a thread
        _log.warning("the lease runs out by itself", extra={"reason": str(error)})
    finally:
        leases.close()
