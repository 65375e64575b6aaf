"""`flask policy`: the rules that licenses are sold under."""

from __future__ import annotations

import click

from api.admin.kinds import Kind
from api.cli.resources import create_command, delete_command, list_command, show_command, update_command

_COLUMNS = ("id", "product", "name", "duration_days", "max_machines", "floating", "max_uses", "entitlements")


@click.group("policy")
def policy() -> None:
    """Policies: the rules that licenses are sold under."""


policy.add_command(create_command(Kind.POLICY))
policy.add_command(list_command(Kind.POLICY, _COLUMNS, ("product", "q")))
policy.add_command(show_command(Kind.POLICY))
policy.add_command(update_command(Kind.POLICY))
policy.add_command(delete_command(Kind.POLICY))
