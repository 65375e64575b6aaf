"""Every kind of fault by its name, with what it touches: from that follows which two may overlap."""

from __future__ import annotations

from tests.chaos.cluster import database_faults as database
from tests.chaos.cluster import faults
from tests.chaos.cluster.machine import SmallDisk
from tests.chaos.cluster.scene import Kind
from tests.chaos.cluster.site import Site
from tests.support.replication import ReplicatedPair

_THIS = (None,)
_OTHERS, _ALL = (2, 3), (1, 2, 3)
_PROCESSES, _BACK, _CLOCK = ("processes {rank}",), ("back {rank}",), ("clock {rank}",)
_CLOCKS = ("LEDGER_CLOCK", "CLOCKS")
_EVERY_BACK = ("back 1", "back 2", "back 3")

_PROCESS_KINDS = (
    Kind("kill_worker", faults.kill_worker, _PROCESSES, _ALL, brief=True),
    Kind("kill_supervisor", faults.kill_supervisor, _PROCESSES, brief=True),
    Kind("freeze_worker", faults.freeze_worker, _PROCESSES, silent=_THIS),
    Kind("kill_primary", faults.kill_primary, _PROCESSES, silent=_THIS),
    Kind("freeze_primary", faults.freeze_primary, _PROCESSES, silent=_THIS),
    Kind("term_primary", faults.term_primary, _PROCESSES, silent=_THIS),
    Kind("kill_standby", faults.kill_standby, _PROCESSES, _OTHERS, silent=_THIS),
    Kind("two_copies", faults.two_copies, _PROCESSES, needs_ledger=True, prepares=True),
)
_SERVER_KINDS = (
    Kind("stop_postgres", faults.stop_postgres, ("server",), takes_ledger=True),
    Kind("kill_postgres", faults.kill_postgres, ("server",), takes_ledger=True),
    Kind("freeze_postgres", faults.freeze_postgres, ("server",), takes_ledger=True),
    Kind(
        "stop_postgres_and_kill_primary",
        faults.stop_postgres_and_kill_primary,
        ("server", *_PROCESSES),
        silent=_THIS,
        takes_ledger=True,
    ),
    Kind("kill_pooler", faults.kill_pooler, ("pooler",), takes_ledger=True, brief=True),
    Kind("promote_standby", database.promote_standby, ("server", "settings"), takes_ledger=True, prepares=True),
)
_DATABASE_KINDS = (
    Kind(
        "lock_table",
        database.lock_table,
        (),
        tables=database.one_table,
        takes_ledger=True,
        troubles=("LOCKED", "LEDGER"),
    ),
    Kind("lock_row", database.lock_row, (), tables=database.licenses, takes_ledger=True, troubles=("HELD",)),
    Kind(
        "revoke_table",
        database.revoke_table,
        (),
        tables=database.one_table,
        takes_ledger=True,
        troubles=("LEDGER", "QUEUE_NOT_TAKEN"),
    ),
    Kind(
        "rename_table",
        database.rename_table,
        (),
        tables=database.one_table,
        takes_ledger=True,
        troubles=("LEDGER", "QUEUE_NOT_TAKEN"),
    ),
    Kind(
        "row_security",
        database.row_security,
        (),
        tables=database.one_or_all,
        takes_ledger=True,
        troubles=("LEDGER", "QUEUE_NOT_TAKEN", "CONTRADICTED"),
    ),
    Kind("read_only", database.read_only, ("settings",), takes_ledger=True, troubles=("READ_ONLY",)),
    Kind("clock_forward", database.clock_forward, ("server's clock",), takes_ledger=True, troubles=_CLOCKS),
    Kind("clock_back", database.clock_back, ("server's clock",), takes_ledger=True, troubles=_CLOCKS),
)
_NETWORK_KINDS = (
    Kind("partition", faults.partition, _BACK, takes_ledger=True),
    Kind("partition_up", faults.partition_up, _BACK, takes_ledger=True),
    Kind("partition_down", faults.partition_down, _BACK, takes_ledger=True),
    Kind("cut_standby", faults.cut_standby, ("back 3", "front 1", "front 2"), silent=(1, 2), takes_ledger=True),
    Kind("reset_connections", faults.reset_connections, _EVERY_BACK, takes_ledger=True, brief=True),
    Kind("slow_network", faults.slow_network, _BACK, takes_ledger=True),
    Kind("clients_cut_off", faults.clients_cut_off, ("front 1",), silent=_THIS),
)
_MACHINE_KINDS = (
    Kind("shift_clock", faults.shift_clock, _CLOCK, _ALL, silent=_THIS, troubles=("WALL_CLOCK", "OWN_CLOCK", "CLOCKS")),
    Kind("full_disk", faults.full_disk, (*_PROCESSES, *_BACK), silent=_THIS, takes_ledger=True, prepares=True),
    Kind("damaged_queue", faults.damaged_queue, ("server", *_PROCESSES), silent=_THIS, takes_ledger=True),
)

#: By name. The order is that of the short form.
FAULTS: dict[str, Kind] = {
    kind.name: kind for kind in (*_PROCESS_KINDS, *_SERVER_KINDS, *_DATABASE_KINDS, *_NETWORK_KINDS, *_MACHINE_KINDS)
}


def cannot_be_made(site: Site) -> dict[str, str]:
    """The kinds of fault that this machine does not allow, and why."""
    why = {}
    if not SmallDisk.can_be_made():
        why["full_disk"] = "only root can make a small disk"
    if site.pooler is None:
        why["kill_pooler"] = "PgBouncer is not installed"
    if site.primary.clock is None:
        why |= dict.fromkeys(("shift_clock", "clock_forward", "clock_back"), "there is no C compiler")
    if not ReplicatedPair.is_installed():
        why["promote_standby"] = "pg_basebackup is not installed"
    return why
