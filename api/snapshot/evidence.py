"""Absence does not prove itself: what this node's copy holds is evidence against what the ledger does not show.

Row security, a wrong database, a restore under way and a deletion behind the log's back all look like "nobody knows
this key". So a look-up that shows less than the copy holds is suspect, and the ledger is asked why: a deletion in its
log, or another key of the license, is the truth; anything else is a contradiction, and no denial is signed.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, select

from api import logs
from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerContradicts
from api.ledger.log import brief_reading
from api.ledger.records import LicenseQuery, LicenseRecord
from api.node.ledger_breaker import LedgerBreaker
from api.snapshot.reader import Reader

_log = logs.get("evidence")

_licenses, _machines, _policies, _events = (
    tables.licenses.c,
    tables.machines.c,
    tables.policies.c,
    tables.events.c,
)


class Evidence:
    """This node's copy as a witness of what is in the ledger at `database`."""

    def __init__(self, reader: Reader, database: Database, breaker: LedgerBreaker) -> None:
        self._reader = reader
        self._database = database
        self._breaker = breaker

    def suspects(self, queries: Sequence[LicenseQuery], known: Sequence[LicenseRecord]) -> set[int]:
        """The places of the queries to which the ledger showed less than the copy holds. Sends nothing."""
        held = self._reader.held(queries) or [LicenseRecord(None)] * len(queries)
        return {
            i
            for i, (query, before, now) in enumerate(zip(queries, held, known, strict=True))
            if now.orphan is not None or self._shows_less(query, before, now)
        }

    def examine(self, query: LicenseQuery, known: LicenseRecord) -> LedgerContradicts | None:
        """The contradiction in `known`, the answer to a suspect `query`; None where it is the truth.

        Raises `LedgerError`.
        """
        # The license refers to its policy: the ledger would not have let that go.
        reason = f"the policy of license {known.orphan} is not shown" if known.orphan else self._unexplained(query)
        return None if reason is None else self._contradiction(reason)

    def require_absence(self, table: Table, id: str) -> None:
        """Raises `LedgerContradicts` where the copy has this row and the ledger shows neither it nor its deletion.

        `table`: licenses, policies or machines. Raises `LedgerError`.
        """
        if not self._reader.has_row(table, id):
            return
        with brief_reading(self._database) as connection:
            there = connection.execute(select(table.c.id).where(table.c.id == id)).first() is not None
            if there or self._was_deleted(connection, table, id):
                return
        raise self._contradiction(f"{table.name} {id} is not shown")

    def hides_machines(self, key_hash: str, shown: set[str]) -> bool:
        """Whether `shown`, the ids of all machines that the ledger shows of a license, lack active ones of the copy.

        Sends nothing. What this node queued is in its copy before it is in the ledger: that contradicts nothing.
        """
        if self._reader.held([]) is None:
            return False
        license_id, held = self._reader.ids_of(key_hash)
        if license_id is None or held <= shown:
            return False
        if not self._reader.is_own(license_id):
            self._contradiction(_not_shown(license_id, held - shown))
        return True

    def _shows_less(self, query: LicenseQuery, before: LicenseRecord, now: LicenseRecord) -> bool:
        if before.holding is None:
            return False
        if now.holding is None:
            return True
        license_id = before.holding.license.id
        if license_id != now.holding.license.id:
            return False  # the key changed hands
        less = before.holding.active(query.fingerprint) is not None and query.fingerprint not in now.holding.machines
        # What this node queued is in its copy before it is in the ledger.
        return less and not self._reader.is_own(license_id)

    def _unexplained(self, query: LicenseQuery) -> str | None:
        """What of this license the ledger does not show for no reason that its log gives."""
        license_id, machine_ids = self._reader.ids_of(query.key_hash)
        if license_id is None:
            return None  # the copy has followed its deletion meanwhile
        with brief_reading(self._database) as connection:
            statement = select(_licenses.key_hash, _policies.id).select_from(
                tables.licenses.outerjoin(tables.policies, _policies.id == _licenses.policy)
            )
            row = connection.execute(statement.where(_licenses.id == license_id)).first()
            if row is None:
                deleted = _license_was_deleted(connection, license_id)
                return None if deleted else f"license {license_id} is not shown"
            if row[1] is None:
                return f"the policy of license {license_id} is not shown"
            if row[0] != query.key_hash:
                return None  # it was given another key
            shown = set(connection.scalars(select(_machines.id).where(_machines.license_id == license_id)))
        hidden = machine_ids - shown
        return _not_shown(license_id, hidden) if hidden else None

    def _was_deleted(self, connection: Connection, table: Table, id: str) -> bool:
        """Whether the log says that this row was deleted. A machine's goes with its license's, which is logged."""
        if table is tables.policies:
            deleted = select(_events.data).where(_events.type == "policy.deleted", _events.data.contains(id))
            return connection.execute(deleted.limit(1)).first() is not None
        license_id = id if table is tables.licenses else self._reader.license_of_machine(id)
        # None: the copy has followed its deletion since it was asked whether it has the machine.
        return license_id is None or _license_was_deleted(connection, license_id)

    def _contradiction(self, reason: str) -> LedgerContradicts:
        if not self._breaker.is_contradicted:
            _log.error("the ledger contradicts this node's copy of it", extra={"reason": reason})
        self._breaker.contradicted()
        return LedgerContradicts(f"{reason} by the ledger; this node's copy has it, and the log tells of no deletion")


def _not_shown(license_id: str, machine_ids: set[str]) -> str:
    return f"machine {min(machine_ids)} of license {license_id} is not shown"


def _license_was_deleted(connection: Connection, id: str) -> bool:
    query = select(_events.seq).where(_events.license_id == id, _events.type == "license.deleted")
    return connection.execute(query.limit(1)).first() is not None
