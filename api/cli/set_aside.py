"""`flask events dead` and `revive`: what this node's replay has set aside, and how it comes back.

Both work at the queue's file while the node runs: its lock keeps them and the node apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from api.cli.context import open_context, read_settings
from api.cli.output import as_json, show_list
from api.cli.resources import is_license_id, license_id_of
from api.node.clock import timestamp
from api.node.shared_state import open_shared_state
from api.supervisor.replay import forget_dead
from failover import EventQueue
from failover.errors import QueueError
from failover.queue import Queued

_COLUMNS = ("event_id", "type", "license_id", "occurred_at", "tries", "reason")

license_option = click.option(
    "--license", "license", help="Only events of this license: its id, or what else names it while the ledger answers."
)


@click.command("dead")
@license_option
@as_json
def dead(license: str | None, as_json: bool) -> None:
    """List the events that this node's replay has set aside, the newest first, and why."""
    license_id = None if license is None else _license_id(license)
    with _opened(read_settings().queue_path) as queue:
        found = [_shown(one) for one in queue.dead() if license_id in (None, one.event.key)]
        if not as_json:
            click.echo(f"{len(found)} set aside in {queue.path}", err=True)
        show_list(found[::-1], _COLUMNS, as_json)


@click.command("revive")
@click.argument("event_ids", nargs=-1)
@license_option
def revive(event_ids: tuple[str, ...], license: str | None) -> None:
    """Let events that were set aside wait for the ledger again: all, those of EVENT_IDS, or those of one license.

    The node sends them in their old order with its next replay, and counts their tries anew.
    """
    with open_context() as context, _opened(context.settings.queue_path) as queue:
        license_id = None if license is None else license_id_of(context.resources, license)
        found = [one for one in queue.dead() if license_id in (None, one.event.key)]
        chosen = [one for one in found if not event_ids or one.event.event_id in event_ids]
        if missing := set(event_ids) - {one.event.event_id for one in chosen}:
            raise click.ClickException(f"{', '.join(sorted(missing))}: not set aside in {queue.path}")
        if chosen:
            # Before they are there: no call of their licenses may overtake them.
            open_shared_state(context.settings.data_dir).breaker.will_queue()
            forget_dead(context.journal, [one.event.event_id for one in chosen])
        revived = queue.revive([one.position for one in chosen])
        click.echo(f"{revived} events wait again in {queue.path}")


def _license_id(name: str) -> str:
    """The id that `name` means. The ledger is asked only where it is none: it may be out of reach."""
    if is_license_id(name):
        return name
    with open_context() as context:
        return license_id_of(context.resources, name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[EventQueue]:
    """The queue's file as it is. Errors end the command."""
    if not path.exists():
        raise click.ClickException(f"there is no queue at {path}")
    try:
        with contextlib.closing(EventQueue(path)) as queue:
            yield queue
    except QueueError as error:
        raise click.ClickException(f"the queue {path} cannot be used: {error}") from error


def _shown(one: Queued) -> dict[str, Any]:
    return {
        "event_id": one.event.event_id,
        "type": one.event.kind,
        "license_id": one.event.key or None,
        "occurred_at": timestamp(one.event.occurred_at),
        "tries": one.tries,
        "reason": one.reason,
    }
