"""The proof of what is kept with a license: how many seats its machines hold, and how many of those are in excess.

Decisions believe these counts, so that they cost the same whatever a license has behind it. All writers keep them in
the commit that changes the machines; where they differ all the same, another program wrote, and that is a trouble.
Machines that this node's copy holds and the ledger does not show may be hidden, or deleted behind the log's back: to
count the others would give their seats away, so such a license is left as it is, and that is a contradiction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, case, func, select, update

from api import logs
from api.ledger.tables import licenses, machines
from api.snapshot.evidence import Evidence
from api.supervisor.duties.terms import Writing

_log = logs.get("duties")

COUNTED = "license.counted"
_CHUNK = 1_000


class Proof:
    """One round through all licenses, some at a time; then it begins anew. `mended`: how many it has put right."""

    def __init__(self, evidence: Evidence | None = None) -> None:
        """`evidence`: what this node's copy says of machines that the ledger does not show."""
        self.mended = 0
        self._evidence = evidence
        self._contradicted: set[str] = set()
        self._after = ""

    def __call__(self, writing: Writing) -> bool:
        """Proves the next licenses; gives whether there are more."""
        query = select(licenses.c.id).where(licenses.c.id > self._after).order_by(licenses.c.id).limit(_CHUNK)
        ids = list(writing.connection.execute(query).scalars())
        if wrong := _wrong(writing.connection, ids):
            self._mend(writing, [row.id for row in wrong])
        self._after = ids[-1] if len(ids) == _CHUNK else ""
        return len(ids) == _CHUNK

    def again(self, writing: Writing) -> bool:
        """Looks again at licenses whose machines were not shown, and reports them until they are. Gives False."""
        if self._contradicted:
            self._mend(writing, sorted(self._contradicted)[:_CHUNK])
        return False

    def _mend(self, writing: Writing, ids: list[str]) -> None:
        query = select(licenses.c.id).where(licenses.c.id.in_(ids)).order_by(licenses.c.id)
        locked = list(writing.connection.execute(query.with_for_update(skip_locked=True)).scalars())
        self._contradicted.difference_update(ids)
        # What was read without the locks may have been of two moments.
        for row in _wrong(writing.connection, locked):
            if self._is_contradicted(writing.connection, row):
                self._contradicted.add(row.id)
                continue
            counts = {"seats": row.held, "excess": row.tolerated}
            writing.connection.execute(update(licenses).where(licenses.c.id == row.id).values(counts))
            kept = {"seats": row.seats, "excess": row.excess}
            writing.add_event(COUNTED, license_id=row.id, kept=kept, counted=counts)
            writing.stamp(licenses, [row.id])
            _log.error("a license's counts were not those of its machines", extra={"license": row.id, "kept": kept})
            self.mended += 1

    def _is_contradicted(self, connection: Connection, row: Any) -> bool:
        if self._evidence is None:
            return False
        shown = connection.scalars(select(machines.c.id).where(machines.c.license_id == row.id))
        return self._evidence.hides_machines(row.key_hash, set(shown))


def _wrong(connection: Connection, ids: list[str]) -> list[Any]:
    """Those of the licenses `ids` whose kept counts are not those of their machines' rows, with both."""
    joined = licenses.outerjoin(machines, and_(machines.c.license_id == licenses.c.id, machines.c.active))
    held = func.count(machines.c.id)
    tolerated = func.coalesce(func.sum(case((machines.c.excess, 1), else_=0)), 0)
    kept = (licenses.c.id, licenses.c.key_hash, licenses.c.seats, licenses.c.excess)
    query = select(*kept, held.label("held"), tolerated.label("tolerated")).select_from(joined)
    query = query.where(licenses.c.id.in_(ids)).group_by(*kept)
    return list(connection.execute(query.having((licenses.c.seats != held) | (licenses.c.excess != tolerated))))
