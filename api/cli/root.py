"""`flask ...`: the command line of an administrator, as a light application that opens nothing by itself."""

from __future__ import annotations

import os

import click
from flask import Flask

from api.cli.db import db
from api.cli.events import events
from api.cli.keys import keys
from api.cli.licenses import license_
from api.cli.nodes import node
from api.cli.policies import policy
from api.cli.products import product
from api.cli.secrets import secrets
from api.cli.set_aside import dead, revive
from api.cli.tokens import token

_SERVES_NOTHING = (
    "`flask` is this node's command line, and serves nothing. Start the node with `make run`, or as hosts do with "
    "`cd api && python app.py`."
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
    for of_events in (dead, revive):
        events.add_command(of_events)
    for command in (product, policy, license_, token, keys, secrets, events, node, db):
        app.cli.add_command(command)
    return app
