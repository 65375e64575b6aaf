"""The package `failover` as this server configures it: durations from the settings, beats that bring a look along."""

from __future__ import annotations

import contextlib

from sqlalchemy import Connection

from api.config.settings import Settings
from api.ledger.database import Database
from api.ledger.log import brief_reading
from api.supervisor import settings_digest
from api.supervisor.copying import Copy
from api.supervisor.queueing import Queueing
from api.version import VERSION
from failover import Config, Hooks, Identity, SqlLeaseStore, Supervisor
from failover.database import Database as LeaseDatabase
from failover.exchange import SqlExchange
from failover.heartbeat import SqlHeartbeatStore


def failover_supervisor(
    settings: Settings,
    instance: str,
    leases: LeaseDatabase,
    rest: Database,
    copy: Copy,
    queueing: Queueing,
    epoch_seen: int,
) -> Supervisor:
    """The node's failover, not started. `leases`: the lease's own connection; `rest`: that of everything else."""
    me = Identity(instance, settings.node_id, settings.node_rank)
    return Supervisor(
        me,
        config_of(settings),
        SqlLeaseStore(leases),
        SqlHeartbeatStore(rest),
        queue=queueing.queue,
        replay=queueing.replay,
        hooks=Hooks(
            ready=copy.may_lead,
            applied_seq=copy.seq,
            head_seq=copy.head,
            # Reading a file of this machine costs nothing.
            is_busy=lambda: rest.is_sqlite or copy.pace.is_asked,
        ),
        url=settings.node_url,
        version=VERSION,
        settings_digest=settings_digest.digest(settings),
        epoch_seen=epoch_seen,
        exchange=None if rest.is_sqlite else SqlExchange(_Briefly(rest), copy),
        line=leases.line,
    )


class _Briefly:
    """`failover.database.Storage` on the ledger's connections: what a beat asks may take no longer than a beat."""

    is_sqlite = False

    def __init__(self, database: Database) -> None:
        self._database = database

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        return brief_reading(self._database)

    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        return self._database.writing()


def config_of(settings: Settings) -> Config:
    """The durations that the settings give; the rest are the package's own."""
    return Config(
        heartbeat_interval=settings.heartbeat_interval,
        heartbeat_timeout=settings.heartbeat_timeout,
        failback_delay=settings.failback_delay,
        poll=min(0.5, settings.heartbeat_interval),
        # Half a second by default; every time-out that the settings take leaves room for two renewals.
        margin=min(0.5, settings.heartbeat_timeout / 12),
    )
