"""Whether the ledger that is there may take the place of the one that this node's folder holds a copy of.

A database without licenses where there were some is a wrong URL, a lost volume or a moved file far more often than it
is meant: the copy is kept and the node waits, until `flask db adopt` says in the ledger's own log that it is meant.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from api.ledger import tables
from api.node.troubles import Trouble
from api.snapshot.copy import Snapshot

#: The event by which an operator says so; its data's `instead_of` is the id of the ledger that was copied.
ADOPTED = "ledger.adopted"


class Copied(msgspec.Struct, frozen=True):
    """Which ledger the copy is of, in which generation, and whether it holds licenses."""

    ledger_id: str
    generation: int
    has_licenses: bool


class Found(msgspec.Struct, frozen=True):
    """The ledger that is there. `ledger_id` None: the database has no schema of ours, or the file is not there.

    `goes_on`: whether its log goes on from where the copy is.
    """

    ledger_id: str | None
    generation: int = 0
    has_licenses: bool = False
    goes_on: bool = False
    adopted: frozenset[str] = frozenset()


def objection(copied: Copied | None, found: Found) -> str | None:
    """Why the copy must not give way to what was found; None where it may. Pure."""
    if copied is None or not copied.has_licenses or found.has_licenses or found.goes_on:
        return None
    if copied.ledger_id in found.adopted:
        return None
    if found.ledger_id == copied.ledger_id and found.generation > copied.generation:
        return None  # restored, and adopted by an operator
    return Trouble.NOT_ADOPTED(copied=copied.ledger_id)


def copied_in(snapshot: Snapshot) -> Copied | None:
    """What is copied, None where nothing is. Raises `sqlite3.Error`."""
    position = snapshot.position()
    if position is None:
        return None
    return Copied(position.ledger_id, position.generation, snapshot.has_any(tables.licenses))


def adopted_by(connection: Connection) -> frozenset[str]:
    """The ids of the ledgers in whose place this one was put by an operator."""
    query = select(tables.events.c.data).where(tables.events.c.type == ADOPTED)
    return frozenset(str(msgspec.json.decode(data)["instead_of"]) for data in connection.scalars(query))
