"""What every message to Postgres sets before its statements, instead of inheriting it.

What a session begins with is not ours: a role, a database, a host at its quota or the other clients of a pooler give
it another isolation, time-out, schema or row security. All of this is `SET LOCAL`, which ends with the transaction:
what is set for a session is lost behind a transaction pooler. Several statements in one message are one transaction, so
it costs no round trip.

Two things no statement can set for its own message: the encoding, which `engines` gives with the connection, and how
literals are read (`standard_conforming_strings`): the driver quotes as the connection reports, with E'' where that is
off. That a server is read-only is never overridden: it may be the old one, or at its quota.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The schema of a ledger whose operator names none.
DEFAULT_SCHEMA = "public"

#: The clock of a session's own time-out runs from the head of a message: it is stopped first, or it would end the rest.
_UNTIMED = "SET LOCAL statement_timeout = 0; "
#: `on`: what was answered as committed is on disk. Times are exchanged as Unix seconds, to the last digit.
_STATE = (
    "SET LOCAL row_security = off; SET LOCAL synchronous_commit = on; SET LOCAL timezone = 'UTC'; "
    "SET LOCAL extra_float_digits = 1; "
)
#: No statement that reads may come before it.
_ISOLATION = "SET LOCAL transaction_isolation = 'read committed'; "
_SCHEMA_PARAMETER = "ledger_schema"
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a statement, its wait for a lock, and a pause within a transaction may take, in ms; 0: no limit."""

    statement_ms: int
    lock_ms: int
    idle_ms: int

    @property
    def sql(self) -> str:
        """The statements that set them for the rest of the transaction."""
        return (
            f"SET LOCAL statement_timeout = {self.statement_ms}; SET LOCAL lock_timeout = {self.lock_ms}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {self.idle_ms}; "
        )


class Session:
    """The statements that go before others, for tables in `schema`; None: in whatever schema the session has."""

    def __init__(self, schema: str | None) -> None:
        if schema is not None and not _SCHEMA_NAME.fullmatch(schema):
            raise ValueError("a schema's name has lower-case letters, digits and _, and does not begin with a digit")
        self.schema = schema
        # Temporary tables come first unless they are named: behind a pooler they are another client's.
        self._state = _STATE + ("" if schema is None else f'SET LOCAL search_path = "{schema}", pg_temp; ')

    def alone(self, limits: Limits) -> str:
        """To go before statements that are one message, and so one transaction without BEGIN."""
        return _UNTIMED + _ISOLATION + self._state + limits.sql

    def begin(self, limits: Limits, isolation: str = "READ COMMITTED") -> str:
        """Begins a transaction of several messages."""
        return f"BEGIN ISOLATION LEVEL {isolation}; {_UNTIMED}{self._state}{limits.sql}"


def with_schema(url: str, schema: str) -> str:
    """`url` with the schema in it: whatever connects by it finds the tables there. Not a parameter that libpq knows."""
    return f"{url}{'&' if '?' in url else '?'}{_SCHEMA_PARAMETER}={schema}"


def taken_apart(url: str) -> tuple[str, str | None]:
    """`url` as it was before `with_schema`, and that schema; None where it has none."""
    found = re.fullmatch(rf"(.*)[?&]{_SCHEMA_PARAMETER}=([a-z0-9_]+)", url)
    return (found[1], found[2]) if found else (url, None)
