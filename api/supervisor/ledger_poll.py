"""One poll of the ledger by a supervisor: a single statement that shows whether anything has moved since the last one.

What has not moved is not sent again. A database that is paid by what it sends is asked this all day long by nodes that
have nothing to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from api.ledger.permitted_keys import decoded
from api.licensing import Watch
from api.node.clock import Clock
from api.signing import PermittedKeys
from api.snapshot import Position
from api.supervisor.duties import watching

_STANDS = "l.ledger_id = :ledger_id AND l.generation = :generation AND h.seq = :seq AND e.event_id {is_same} :event_id"
#: Asked for each time: what hides rows, or refuses them, is met here and not by a customer.
_SHOWN = """EXISTS (SELECT 1 FROM licenses), EXISTS (SELECT 1 FROM machines), EXISTS (SELECT 1 FROM policies)"""
_FROM = """
FROM (SELECT coalesce({keys}, '[]') AS listed FROM (SELECT kid, status, jwk_json FROM signing_keys ORDER BY kid) s) k
LEFT JOIN ledger l ON l.id = 1 LEFT JOIN log_head h ON h.id = l.id LEFT JOIN events e ON e.seq = h.seq
LEFT JOIN watch w ON w.id = 1
"""
#: One value of JSON: each column more would be described anew in every answer.
_POSTGRES = f"""
(SELECT json_build_array(h.seq, {_STANDS}, {_SHOWN},
    CASE WHEN w.looked_at = :looked_at THEN NULL ELSE json_build_array(w.since, w.until, w.looked_at) END,
    CASE WHEN left(encode(sha256(convert_to(k.listed, 'UTF8')), 'hex'), 32) = :keys_known THEN NULL ELSE k.listed END,
    CASE WHEN l.ledger_id = :ledger_known THEN NULL ELSE l.ledger_id END
) {_FROM})
""".format(is_same="IS NOT DISTINCT FROM", keys="json_agg(json_build_array(kid, status, jwk_json))::text")
_NOW = "extract(epoch FROM clock_timestamp())::float8"
_TAKES_WRITES = "current_setting('transaction_read_only') = 'off'"
#: A file of this machine may say it all each time. It has no clock but this machine's.
_SQLITE = f"SELECT h.seq, {_STANDS}, {_SHOWN}, w.since, w.until, w.looked_at, k.listed, l.ledger_id {_FROM}".format(
    is_same="IS", keys="json_group_array(json_array(kid, status, jwk_json))"
)


class PollResult(msgspec.Struct, frozen=True):
    """What one poll found. `at`: ledger time, None for a ledger without a clock; `head`: the log's last place.

    `stands`: whether the node's copy is where the log is; `last`: the leader's last look, None before there was one;
    `has_licenses`: whether it shows any;
    `keys`: the permitted signing keys in JSON, `ledger_id`: which ledger it is; None where they are those that were
    known.
    """

    at: float | None
    head: int
    stands: bool
    has_licenses: bool
    last: watching.WatchRecord | None
    keys: str | None = None
    ledger_id: str | None = None

    def watch(self, timeout: float, clock: Clock) -> Watch:
        """The span in which silence counts, for a node that answers by `clock`."""
        return watching.counted(self.last, clock.now() if self.at is None else clock.preferred(self.at), timeout)


class LedgerPoll:
    """Polls one ledger, and remembers what need not be sent again."""

    def __init__(self) -> None:
        #: The signing keys that the ledger permits, as last taken in; None before the first.
        self.keys: PermittedKeys | None = None
        #: Which ledger it was at the last look; None before the first.
        self.ledger_id: str | None = None
        self._keys_known = ""
        self._last: watching.WatchRecord | None = None

    def ask(self, position: Position | None) -> tuple[str, dict[str, Any]]:
        """An expression for Postgres that gives JSON, and its parameters; `position`: where the node's copy stands."""
        names = ("ledger_id", "generation", "seq", "event_id")
        parameters = {name: None if position is None else getattr(position, name) for name in names}
        looked_at = None if self._last is None else self._last.looked_at
        known = {"keys_known": self._keys_known, "ledger_known": self.ledger_id, "looked_at": looked_at}
        return _POSTGRES, parameters | known

    def parse(self, answer: Sequence[Any], now: float) -> PollResult:
        """The result that a decoded answer to `ask` stands for, at `now` (ledger time)."""
        head, stands, has_licenses, _, _, watch, keys, ledger_id = answer
        last = self._last if watch is None else _last(*watch)
        return PollResult(now, head or 0, bool(stands), bool(has_licenses), last, keys, ledger_id)

    def poll(self, connection: Connection, position: Position | None) -> PollResult | None:
        """Sends the poll as a message of its own; None from a server that takes no writes, whose state may be old.

        Raises what the driver raises.
        """
        question, parameters = self.ask(position)
        if connection.dialect.name == "sqlite":
            row = connection.execute(text(_SQLITE), parameters).one()
            head, stands, has_licenses, _, _, since, until, looked_at, *news = row
            return PollResult(None, head or 0, bool(stands), bool(has_licenses), _last(since, until, looked_at), *news)
        statement = f"SELECT CASE WHEN {_TAKES_WRITES} THEN json_build_array({_NOW}, {question})::text END"
        found = connection.execute(text(statement), parameters).scalar()
        if found is None:
            return None
        now, answer = msgspec.json.decode(found)
        return self.parse(answer, now)

    def keep(self, result: PollResult) -> None:
        """Keeps the result, so that the same is not sent again."""
        self._last = result.last
        self.ledger_id = result.ledger_id or self.ledger_id
        if result.keys is not None:
            self.keys = decoded(result.keys)
            self._keys_known = hashlib.sha256(result.keys.encode()).hexdigest()[:32]


def _last(since: float | None, until: float | str | None, looked_at: float) -> watching.WatchRecord | None:
    # JSON has no infinity: it comes as a word.
    return None if until is None else watching.WatchRecord(since, float(until), looked_at)
