"""The commands that work at a node's ledger, which need what only Unix has."""

from __future__ import annotations

import click

from api.cli.db import db
from api.cli.events import events
from api.cli.keys import keys
from api.cli.licenses import license_
from api.cli.nodes import node
from api.cli.policies import policy
from api.cli.products import product
from api.cli.set_aside import dead, revive
from api.cli.tokens import token

for _of_events in (dead, revive):
    events.add_command(_of_events)

COMMANDS: tuple[click.Command, ...] = (product, policy, license_, token, keys, events, node, db)
