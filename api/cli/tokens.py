"""`flask token`: who may call as an administrator."""

from __future__ import annotations

import click

from api.cli.context import open_context
from api.cli.output import as_json, show, show_list


@click.group("token")
def token() -> None:
    """Admin tokens, each with its scopes."""


@token.command("create")
@click.option("--name", required=True, help="What or whom it is for.")
@click.option("--scope", "scopes", multiple=True, required=True, help="May be given several times.")
@as_json
def create(name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a token and show it, this once.

    Scopes: stats:read, licenses:read, licenses:write, nodes:write, tokens:write, keys:write.
    """
    with open_context() as context:
        show(context.resources.create_token(name, scopes), as_json)


@token.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the tokens that have not been revoked, the newest first."""
    with open_context() as context:
        show_list(context.resources.tokens()[::-1], ("id", "name", "scopes", "created_at"), as_json)


@token.command("revoke")
@click.argument("id")
def revoke(id: str) -> None:
    """Revoke a token: ID as `flask token list` shows it."""
    with open_context() as context:
        context.resources.revoke_token(id)
    click.echo("Revoked.")
