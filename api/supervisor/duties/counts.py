"""The proof of what is kept with a license: how many seats its machines hold, and how many of those are in excess.

Decisions believe these counts, so that they cost the same whatever a license has behind it. All writers keep them in
the commit that changes the machines; where they differ all the same, somebody else wrote, and that is said loudly.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, case, func, select, update

from api import logs
from api.ledger.tables import licenses, machines
from api.supervisor.duties.terms import Writing

_log = logs.get("duties")

COUNTED = "license.counted"
_CHUNK = 1_000


class Proof:
    """One round through all licenses, some at a time; then it begins anew. `mended`: how many it has put right."""

    def __init__(self) -> None:
        self.mended = 0
        self._after = ""

    def __call__(self, writing: Writing) -> bool:
        """Proves the next licenses; gives whether there are more."""
        query = select(licenses.c.id).where(licenses.c.id > self._after).order_by(licenses.c.id).limit(_CHUNK)
        ids = list(writing.connection.execute(query).scalars())
        if wrong := _wrong(writing.connection, ids):
            self._mend(writing, [row.id for row in wrong])
        self._after = ids[-1] if len(ids) == _CHUNK else ""
        return len(ids) == _CHUNK

    def _mend(self, writing: Writing, ids: list[str]) -> None:
        query = select(licenses.c.id).where(licenses.c.id.in_(ids)).order_by(licenses.c.id)
        locked = list(writing.connection.execute(query.with_for_update(skip_locked=True)).scalars())
        # What was read without the locks may have been of two moments.
        for row in _wrong(writing.connection, locked):
            counts = {"seats": row.held, "excess": row.tolerated}
            writing.connection.execute(update(licenses).where(licenses.c.id == row.id).values(counts))
            kept = {"seats": row.seats, "excess": row.excess}
            writing.say(COUNTED, license_id=row.id, kept=kept, counted=counts)
            writing.stamp(licenses, [row.id])
            _log.error("a license's counts were not those of its machines", extra={"license": row.id, "kept": kept})
            self.mended += 1


def _wrong(connection: Connection, ids: list[str]) -> list[Any]:
    """Those of the licenses `ids` whose kept counts are not those of their machines' rows, with both."""
    joined = licenses.outerjoin(machines, and_(machines.c.license_id == licenses.c.id, machines.c.active))
    held = func.count(machines.c.id)
    tolerated = func.coalesce(func.sum(case((machines.c.excess, 1), else_=0)), 0)
    kept = (licenses.c.id, licenses.c.seats, licenses.c.excess)
    query = select(*kept, held.label("held"), tolerated.label("tolerated")).select_from(joined)
    query = query.where(licenses.c.id.in_(ids)).group_by(*kept)
    return list(connection.execute(query.having((licenses.c.seats != held) | (licenses.c.excess != tolerated))))
