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

from api.ledger.database import READ_ONLY, AcquirePolicy, Database
from api.ledger.errors import LedgerBusy, LedgerReadOnly, LedgerRefused, translate
from api.ledger.records import Batch, LicenseQuery, LicenseRecord
from api.ledger.rows import CHECK_COLUMNS, COLUMNS, DEPARTED, NEVER_CAME, changed_machines, known_from
from api.node.clock import Clock
from failover.session import Limits

#: Shares of a message's budget: the server itself ends what is slow or blocked, before its silence could be taken for
#: that of a server that is gone. A message may wait for one lock and then take its time; it rarely does both.
_STATEMENT_SHARE, _LOCK_SHARE = 0.8, 0.4
_LONGEST_STATEMENT_S, _LONGEST_LOCK_S = 2.0, 0.3
#: Where it hurries: a share of both that is enough for one license's calls, and short for those who wait behind them.
_HURRIED_STATEMENT, _HURRIED_LOCK = 0.5, 0.2
_LONGEST_HURRIED_STATEMENT_S = 0.3

#: The server ends a transaction with which a process does not go on for so long.
_IDLE_S = 2.0

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
_LOCK_FREE_ONES = _LOCK.replace("FOR UPDATE", "FOR UPDATE SKIP LOCKED")
_IS_OURS = "l.id IS NULL OR l.id = ANY((SELECT string_to_array(current_setting('protecao.locked'), ','))::text[])"

_LOOK_UP_LOCKED = "".join(
    (
        "SELECT ",
        _NOW,
        ", q.i - 1, ",
        COLUMNS.format(
            # One more than the policy lets come, or none where it does not count them.
            arrivals="""(SELECT count(*) FROM (SELECT 1 FROM machines s WHERE s.license_id = l.id
                AND s.created_at > extract(epoch FROM clock_timestamp()) - 2592000
                LIMIT coalesce((p.rules_json::json ->> 'moves_per_30d')::bigint + 1
                    + coalesce(l.max_machines, (p.rules_json::json ->> 'max_machines')::bigint), 0)) a)""",
            never_came=NEVER_CAME,
            departed=DEPARTED,
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

#: Locks on machines' rows are waited for before the log's head is locked, not while it is.
_LOCK_MACHINES = "SELECT 1 FROM machines WHERE id = ANY(%(machine_ids)s) ORDER BY id FOR UPDATE;"

#: Before the log's head is held: a call under the same key may be waited for.
_IDEMPOTENCY = """
INSERT INTO idempotency_records (id, request_hash, answer_json, kid, salt, created_at)
VALUES (%(id)s, %(request_hash)s, %(answer_json)s, %(kid)s, %(salt)s, %(created_at)s);
SELECT require_kept('idempotency_records', (SELECT count(*) FROM idempotency_records WHERE id = %(id)s), 1);
"""

#: The function of migration 0006: it writes a batch and counts what it wrote. The log's head is locked in it, and
#: nothing waits after it.
_RECORD = """
SELECT record_batch(%(events)s, %(tallies)s, %(writer)s, %(touches)s, %(licenses)s, %(machines)s, %(findings)s);
"""

#: What every call needs, locked as calls lock it and let go at once.
_IS_BLOCKED = """
LOCK TABLE licenses, machines, events, check_minutes, log_head IN ROW EXCLUSIVE MODE;
LOCK TABLE policies IN ACCESS SHARE MODE;
SELECT seq FROM log_head WHERE id = 1 FOR UPDATE;
ROLLBACK
"""

# Proves that it is others who hold that. No call takes, or asks for, one of these modes; and none keeps the log's head
# over a round trip. A session that is at work under the name of this one is another node's, or this one's: on a machine
# that is slow, they hold up each other. Behind a pooler that renames sessions they all have one name.
_IS_LOCKED_BY_OTHERS = """
SELECT EXISTS (
    SELECT 1 FROM pg_locks k LEFT JOIN pg_stat_activity a ON a.pid = k.pid
    WHERE k.locktype = 'relation' AND k.pid IS DISTINCT FROM pg_backend_pid()
    AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND CASE
        WHEN k.mode = 'AccessExclusiveLock' THEN k.relation = ANY(t.needed || 'policies'::regclass::oid)
        WHEN k.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock') THEN k.relation = ANY(t.needed)
        WHEN k.mode IN ('RowShareLock', 'RowExclusiveLock') THEN k.granted AND k.relation = 'log_head'::regclass
            AND (a.state = 'idle in transaction'
                OR a.application_name IS DISTINCT FROM current_setting('application_name'))
        ELSE false END)
FROM (SELECT '{licenses,machines,events,check_minutes,log_head}'::regclass[]::oid[] AS needed) t
"""

_encode = msgspec.json.Encoder().encode


def _json(values: Sequence[object]) -> str | None:
    return _encode(values).decode() if values else None


class PostgresLedger:
    """See `store.Ledger`."""

    def __init__(
        self,
        database: Database,
        writer: str,
        clock: Clock,
        budget_s: float,
        terms: AcquirePolicy,
        hurried: bool = False,
    ) -> None:
        """`budget_s`: the longest that one message may take; beyond it the connection is ended.

        `hurried`: a statement, and the wait for a lock, may take a part of the usual time.
        """
        self.database = database
        self._writer = writer
        self._clock = clock
        self._budget_s = budget_s
        self._terms = terms
        limits = _limits(budget_s, hurried)
        self._alone = database.session.alone(limits)
        self._begin = database.session.begin(limits)

    def look_up(self, queries: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        with self.database.driver(self._terms) as connection:
            return self._known(connection, self._alone + _LOOK_UP, queries)

    def has_event(self, event_id: str) -> bool:
        with self.database.driver(self._terms) as connection:
            return self._execute(connection, self._alone + _HAS_EVENT, {"event_id": event_id}).fetchone() is not None

    def append(self, batch: Batch) -> None:
        # Several statements in one simple query are one transaction: no BEGIN or COMMIT of their own is needed.
        with self.database.driver(self._terms) as connection:
            self._record(connection, batch, self._alone)

    @contextlib.contextmanager
    def transaction(self, queries: Sequence[LicenseQuery], *, skip_locked: bool = False) -> Iterator[_Transaction]:
        lock = _LOCK_FREE_ONES if skip_locked else _LOCK
        with self.database.driver(self._terms) as connection:
            began = self._clock.monotonic()
            try:
                known = self._known(connection, self._begin + lock + _LOOK_UP_LOCKED, queries)
                if not skip_locked and any(answer.busy for answer in known):
                    raise LedgerBusy("a license came while others were waited for")
                transaction = _Transaction(self, connection, known, until=began + _IDLE_S)
                yield transaction
            except BaseException:
                with contextlib.suppress(psycopg2.Error):  # what ended the block is to be told
                    self._roll_back(connection)
                raise
            if not transaction.committed:
                self._roll_back(connection)

    def is_blocked(self) -> bool:
        with self.database.driver(self._terms) as connection:
            try:
                self._execute(connection, self._begin + _IS_BLOCKED, {})
            except psycopg2.Error as error:
                self._roll_back(connection)
                if not isinstance(translate(error), LedgerBusy):
                    raise
                return self._is_locked_by_others(connection)
        return False

    def _is_locked_by_others(self, connection: Any) -> bool:
        """Whether that is proven; a server too slow to say proves nothing."""
        try:
            return bool(self._execute(connection, self._alone + _IS_LOCKED_BY_OTHERS, {}).fetchone()[0])
        except psycopg2.Error as error:
            if not isinstance(translate(error), LedgerBusy):
                raise
            return False

    def _known(self, connection: Any, sql: str, queries: Sequence[LicenseQuery]) -> list[LicenseRecord]:
        questions = {
            "key_hashes": [query.key_hash for query in queries],
            "fingerprints": [query.fingerprint for query in queries],
            "event_ids": [query.event_id for query in queries],
        }
        sent = self._clock.monotonic()
        rows = self._execute(connection, sql, questions).fetchall()
        if rows and rows[-1][0] is None:
            raise LedgerReadOnly(READ_ONLY)
        if rows:
            self._clock.sample(rows[-1][0], sent, self._clock.monotonic())
        return known_from(rows, [query.fingerprint for query in queries])

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
            "machine_ids": [machine.id for machine in machines],
        }
        if batch.record is not None:
            beginning += _IDEMPOTENCY
            parameters |= msgspec.structs.asdict(batch.record)
        self._execute(connection, beginning + (_LOCK_MACHINES if machines else "") + _RECORD + ending, parameters)

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

    def __init__(self, ledger: PostgresLedger, connection: Any, known: list[LicenseRecord], *, until: float) -> None:
        """`until`: the moment (monotonic) from which the server may have ended it."""
        self.known = known
        self.committed = False
        self._until = until
        self._ledger = ledger
        self._connection = connection

    def commit(self, batch: Batch) -> None:
        if self._ledger._clock.monotonic() >= self._until:
            # The server may have closed the connection, which is no outage: it was not talked to in time.
            raise LedgerBusy("this process did not go on with its transaction in time")
        self._ledger._record(self._connection, batch, ending="COMMIT")
        self.committed = True


def _limits(budget_s: float, hurried: bool) -> Limits:
    statement_s = min(_STATEMENT_SHARE * budget_s, _LONGEST_STATEMENT_S)
    lock_s = min(_LOCK_SHARE * budget_s, _LONGEST_LOCK_S)
    if hurried:
        statement_s = min(_HURRIED_STATEMENT * statement_s, _LONGEST_HURRIED_STATEMENT_S)
        lock_s = _HURRIED_LOCK * lock_s
    return Limits(statement_ms=round(1000 * statement_s), lock_ms=round(1000 * lock_s), idle_ms=round(1000 * _IDLE_S))


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
