"""`flask ...`: the command line of an administrator, as a light application that opens nothing by itself."""

from __future__ import annotations

import os

import click
from flask import Flask

from api.cli.secrets import secrets

_SERVES_NOTHING = (
    "`flask` is this node's command line, and serves nothing. Start the node with `make run`, or as hosts do with "
    "`cd api && python app.py`."
)
#: Modules that Windows has not, and a node needs.
_UNIX_ONLY = frozenset({"fcntl", "resource", "termios"})
_NAMES = ("product", "policy", "license", "token", "keys", "events", "node", "db")
_NOT_HERE = (
    "a node does not run on this system, nor do its commands; `license-admin` does the same over HTTPS: docs/admin.md"
)


def create_cli() -> Flask:
    """What `FLASK_APP` names. It reads no settings: `flask secrets` is run while they are still missing.

    Raises `ClickException` for `flask run`, which would serve it: an application without routes.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == "run":
        raise click.ClickException(_SERVES_NOTHING)
    # What a command writes beside a node's files is, like them, for one user only.
    os.umask(0o077)
    app = Flask("api", static_folder=None)
    for command in (secrets, *_of_a_node()):
        app.cli.add_command(command)
    return app


def _of_a_node() -> list[click.Command]:
    """The commands that work at a ledger; where this system has not what a node needs, what says so in their place."""
    try:
        from api.cli.node_commands import COMMANDS
    except ModuleNotFoundError as error:
        if error.name not in _UNIX_ONLY:
            raise
        return [_unavailable(name) for name in _NAMES]
    return list(COMMANDS)


def _unavailable(name: str) -> click.Command:
    @click.command(name, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def unavailable() -> None:
        """Not on this system: use license-admin."""
        raise click.UsageError(_NOT_HERE)

    return unavailable
