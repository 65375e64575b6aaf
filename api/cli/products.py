"""`flask product`: what licenses are sold for."""

from __future__ import annotations

import click

from api.admin.kinds import Kind
from api.cli.resources import create_command, delete_command, list_command, show_command, update_command


@click.group("product")
def product() -> None:
    """Products: what licenses are sold for."""


product.add_command(create_command(Kind.PRODUCT))
product.add_command(list_command(Kind.PRODUCT, ("id", "code", "name", "created_at"), ("product", "q")))
product.add_command(show_command(Kind.PRODUCT))
product.add_command(update_command(Kind.PRODUCT))
product.add_command(delete_command(Kind.PRODUCT))
