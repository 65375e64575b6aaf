"""The ledger on Postgres: each batch is one message, and the log's head is locked only inside the last one.

psycopg2 sends a text of several statements as one simple query, so locking and reading cost one round trip, and
writing and COMMIT another. `log_head` is locked last and within the message that commits: never over a round trip.
Session features (prepared statements, SET, advisory locks) are avoided: transaction poolers break them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg2

from api.clock import Clock
from api.ledger.database import READ_ONLY, Database, Terms
from api.ledger.errors import LedgerReadOnly, LedgerRefused
from api.ledger.records import Ask, Batch, Known
from api.ledger.rows import CHECK_COLUMNS, COLUMNS, changed_machines, known_from
from failover.session import Limits

_LIMITS = Limits(statement_ms=2_000, lock_ms=300, idle_ms=2_000)

# Arrays, since the planner knows how long they are: of JSON it expects a hundred rows, and reads whole tables.
_FROM = """
FROM unnest(%(key_hashes)s::text[], %(fingerprints)s::text[], %(event_ids)s::text[]) WITH ORDINALITY
    AS q(key_hash, fingerprint, event_id, i)
LEFT JOIN licenses l ON l.key_hash = q.key_hash
LEFT JOIN policies p ON p.id = l.policy
LEFT JOIN machines m ON m.license_id = l.id AND m.fingerprint = q.fingerprint
"""
_NOW = "extract(epoch FROM clock_timestamp())::float8"

_HAS_EVENT = "SELECT 1 FROM events WHERE event_id = %(event_id)s"

# A server that takes no writes may not be the ledger any more: it says no time, and what it knows confirms nothing.
_NOW_IF_WRITABLE = f"CASE current_setting('transaction_read_only') WHEN 'off' THEN {_NOW} END"
_LOOK_UP = f"SELECT {_NOW_IF_WRITABLE}, q.i - 1, {CHECK_COLUMNS} {_FROM}"

# Counts are true only in a snapshot taken after the locks, so locking and reading are two statements. By the second a
# license may have come that the first could not see: it tells which it locked, and any other makes the whole busy.
_LOCK = """
SELECT set_config('protecao.locked', coalesce(string_agg(id, ','), ''), true)
FROM (SELECT id FROM licenses WHERE key_hash = ANY(%(key_hashes)s) ORDER BY id FOR UPDATE) l;
"""
_IS_OURS = "l.id IS NULL OR l.id = ANY((SELECT string_to_array(current_setting('protecao.locked'), ','))::text[])"

_LOOK_UP_LOCKED = "".join(
    (
        "SELECT ",
        _NOW,
        ", q.i - 1, ",
        COLUMNS.format(
            seats="(SELECT count(*) FROM machines s WHERE s.license_id = l.id AND s.active)",
            excess="(SELECT count(*) FROM machines s WHERE s.license_id = l.id AND s.active AND s.excess)",
            arrivals="(SELECT count(*) FROM machines s WHERE s.license_id = l.id AND s.created_at > "
            "extract(epoch FROM clock_timestamp()) - 2592000)",
            stale="""(SELECT json_agg(json_build_array(s.id, s.fingerprint, s.name, s.platform, s.excess,
                s.last_seen_at, s.created_at))::text FROM (
                SELECT * FROM machines s WHERE s.license_id = l.id AND s.active
                AND p.rules_json::json ->> 'release_stale_days' IS NOT NULL
                ORDER BY coalesce(s.last_seen_at, s.created_at) LIMIT 64) s)""",
            recorded="e.data, e.occurred_at",
        ),
        f", {_IS_OURS}",
        _FROM,
        "LEFT JOIN events e ON e.event_id = q.event_id",
    )
)

#: The function of migration 0001 that writes a batch; the log's head is locked in it, and nothing waits after it.
_RECORD = """
SELECT record_batch(%(events)s, %(tallies)s, %(writer)s, %(touches)s, %(licenses)s, %(machines)s, %(findings)s);
"""

_encode = msgspec.json.Encoder().encode


def _json(values: Sequence[object]) -> str | None:
    return _encode(values).decode() if values else None


class PostgresLedger:
    """See `store.Ledger`."""

    def __init__(self, database: Database, writer: str, clock: Clock, budget_s: float, terms: Terms) -> None:
        """`budget_s`: the longest that one message may take; beyond it the connection is ended."""
        self.database = database
        self._writer = writer
        self._clock = clock
        self._budget_s = budget_s
        self._terms = terms
        self._alone = database.session.alone(_LIMITS)
        self._begin = database.session.begin(_LIMITS)

    def look_up(self, asks: Sequence[Ask]) -> list[Known]:
        with self.database.driver(self._terms) as connection:
            return self._known(connection, self._alone + _LOOK_UP, asks)

    def has_event(self, event_id: str) -> bool:
        with self.database.driver(self._terms) as connection:
            return self._execute(connection, self._alone + _HAS_EVENT, {"event_id": event_id}).fetchone() is not None

    def append(self, batch: Batch) -> None:
        # Several statements in one simple query are one transaction: no BEGIN or COMMIT of their own is needed.
        with self.database.driver(self._terms) as connection:
            self._record(connection, batch, self._alone)

    @contextlib.contextmanager
    def transaction(self, asks: Sequence[Ask]) -> Iterator[_Transaction]:
        with self.database.driver(self._terms) as connection:
            try:
                known = self._known(connection, self._begin + _LOCK + _LOOK_UP_LOCKED, asks)
                transaction = _Transaction(self, connection, known)
                yield transaction
            except BaseException:
                self._roll_back(connection)
                raise
            if not transaction.committed:
                self._roll_back(connection)

    def _known(self, connection: Any, sql: str, asks: Sequence[Ask]) -> list[Known]:
        questions = {
            "key_hashes": [ask.key_hash for ask in asks],
            "fingerprints": [ask.fingerprint for ask in asks],
            "event_ids": [ask.event_id for ask in asks],
        }
        sent = self._clock.monotonic()
        rows = self._execute(connection, sql, questions).fetchall()
        if rows and rows[-1][0] is None:
            raise LedgerReadOnly(READ_ONLY)
        if rows:
            self._clock.sample(rows[-1][0], sent, self._clock.monotonic())
        return known_from(rows, [ask.fingerprint for ask in asks])

    def _record(self, connection: Any, batch: Batch, beginning: str = "", ending: str = "") -> None:
        changes = batch.changes
        machines = [machine for change in changes for machine in changed_machines(change.before, change.after)]
        parameters = {
            "events": _json(batch.events),
            "tallies": _json(batch.tallies),
            "writer": self._writer,
            "touches": _json(batch.touches),
            "licenses": _json([_license_row(change.after) for change in changes]),
            "findings": _json(batch.findings),
            "machines": "[]" if changes and not machines else _json(machines),
        }
        self._execute(connection, beginning + _RECORD + ending, parameters)

    def _execute(self, connection: Any, sql: str, parameters: dict[str, Any]) -> Any:
        """Sends one message; `connection` is the driver's. Raises `LedgerRefused` where it cannot be put into words."""
        with self.database.watched(connection, self._budget_s):
            cursor = connection.cursor()
            try:
                cursor.execute(sql, parameters)
            except (UnicodeError, ValueError, psycopg2.InterfaceError) as error:
                if connection.closed:
                    raise
                raise LedgerRefused(type(error).__name__) from error
            return cursor

    def _roll_back(self, connection: Any) -> None:
        if not connection.closed:
            self._execute(connection, "ROLLBACK", {})


class _Transaction:
    """See `store.Transaction`."""

    def __init__(self, ledger: PostgresLedger, connection: Any, known: list[Known]) -> None:
        self.known = known
        self.committed = False
        self._ledger = ledger
        self._connection = connection

    def commit(self, batch: Batch) -> None:
        self._ledger._record(self._connection, batch, ending="COMMIT")
        self.committed = True


def _license_row(holding: Any) -> dict[str, Any]:
    license = holding.license
    return {
        "id": license.id,
        "expires_at": license.expires_at,
        "uses": license.uses,
        "seats": holding.seats,
        "excess": holding.excess,
        "checked_in_at": license.checked_in_at,
        "last_seen_at": license.last_seen_at,
    }
