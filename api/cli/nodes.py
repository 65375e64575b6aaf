"""`flask node`: the nodes that beat in the ledger, and this one as its settings make it."""

from __future__ import annotations

import contextlib
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from api.cli.context import AdminContext, context_of, open_context, read_settings
from api.cli.output import as_json, show, show_list
from api.ledger.errors import LedgerError
from api.node.clock import timestamp
from api.node.shared_state import open_shared_state
from api.snapshot.timekeeping import CLOCK_TRUSTED
from api.stats import cluster
from api.stats.counts import count, settle
from api.stats.nodes import nodes
from api.supervisor import companion
from api.supervisor.start import SupervisorRuns

_COLUMNS = ("id", "rank", "role", "url", "beat_age_s", "applied_seq", "queue", "version", "presence")
#: The whole of the counted checks is read.
_PATIENCE_S = 5.0


@click.group("node")
def node() -> None:
    """Nodes: who beats, and what this one is."""


@node.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the nodes that beat in the ledger."""
    with open_context() as context:
        show_list(_listed(context), _COLUMNS, as_json)


@node.command("show")
@click.argument("id", required=False)
@as_json
def show_(id: str | None, as_json: bool) -> None:
    """Show a node that beats; without ID this one, as its settings make it."""
    with open_context() as context:
        if id is None:
            show(_own(context), as_json)
            return
        found = [one for one in _listed(context) if one["id"] == id]
    if not found:
        raise click.ClickException("no node of this id beats in the ledger")
    show_list(found, _COLUMNS, as_json)


def _listed(context: AdminContext) -> list[dict[str, Any]]:
    return nodes(context.database, context.journal.now(), context.settings.heartbeat_timeout)


@node.command("stats")
@as_json
def stats(as_json: bool) -> None:
    """Show what the ledger says of it all, as GET /stats does: lease, sync, licenses, machines, checks, failovers."""
    with open_context() as context:
        now = context.journal.now()
        with context.journal.reading(_PATIENCE_S) as connection:
            counts = count(connection, now, settle(connection, now))
        found = msgspec.structs.asdict(replace(counts, nodes=nodes(context.database, now)))
    show(found, as_json)


@node.command("run-supervisor")
def run_supervisor() -> None:
    """Supervise this node until SIGTERM, for a host whose web processes load wsgi.py and may have no threads.

    To be run as a task that the host keeps alive. Beside `python app.py`, and beside another of these, it refuses.
    """
    settings = read_settings()
    stop = companion.set_when_stopped()
    with contextlib.suppress(LedgerError, OSError), context_of(settings):
        pass  # brings the schema up to date, which nothing else may do before the first call
    try:
        companion.run_alone(settings, stop)
    except SupervisorRuns:
        raise click.ClickException(
            f"this node has a supervisor already: another process holds the lock in {settings.data_dir}"
        ) from None


@node.command("switchover")
@click.argument("id")
@as_json
def switchover(id: str, as_json: bool) -> None:
    """Hand the lease from the node that leads to the node ID, which must beat."""
    with open_context() as context:
        show(cluster.hand_to(context.database, id, context.settings.heartbeat_timeout, promote=False), as_json)


@node.command("promote")
@click.argument("id")
@as_json
def promote(id: str, as_json: bool) -> None:
    """Make the node ID lead, whether or not anybody does now."""
    with open_context() as context:
        show(cluster.hand_to(context.database, id, context.settings.heartbeat_timeout, promote=True), as_json)


@node.command("trust-clock")
@as_json
def trust_clock(as_json: bool) -> None:
    """Say that the ledger's clock is right, or for an embedded ledger this machine's, as it is now.

    For a node on this host that waits because no two clocks agree, or that goes by another time than its ledger's. It
    follows within seconds.
    """
    with open_context() as context:
        with context.journal.change() as change:
            change.commit(context.journal.event(CLOCK_TRUSTED, id=context.settings.node_id))
        open_shared_state(context.settings.data_dir).breaker.trust_clock()
        now = timestamp(context.journal.now())
    if as_json:
        show({"node": context.settings.node_id, "now": now}, as_json)
    else:
        click.echo(f"It is {now}. A node {context.settings.node_id} that runs here goes by that.")


def _own(context: AdminContext) -> dict[str, Any]:
    settings = context.settings
    return {
        "id": settings.node_id,
        "rank": settings.node_rank,
        "url": settings.node_url,
        "region": settings.node_region,
        "peers": settings.peer_urls,
        "ledger": str(settings.db_path) if settings.embedded else "shared",
        "data_dir": str(settings.data_dir),
        "disk": settings.disk,
        "platform": settings.platform,
        "workers": settings.workers,
    }
