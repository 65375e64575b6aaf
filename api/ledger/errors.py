"""What can go wrong with the ledger, split by what the caller can do next.

LedgerError
├── LedgerUnavailable   it cannot be reached, did not answer in time or cannot work: another node may, or later
│   ├── LedgerReadOnly  it takes reads only: its connections lead to a server that is not, or no more, the primary
│   └── LedgerUnsuitable  what is there cannot be this ledger: an operator has to see to it, and its words say how
├── QueueIsFull         the same, and this node's queue has no room for what it would have taken
├── LedgerContradicts   it does not show what it had, and does not say why: no denial may be made of that
├── LedgerBusy          it answered that others hold the rows: the same again, a moment later
│   ├── LedgerSlow      it answered that this statement took too long: the same again would, too
│   └── NoConnection    it was not asked: all connections of this process are in use
├── LedgerDropped       it answered, and a trigger or a rule of its own kept out what was written
└── LedgerRefused       it does not take a value of what was sent, or the driver could not send it

What speaks of the surroundings (a table or a right that is missing, a disk that is full, a server that stops) is
`LedgerUnavailable`, never `LedgerRefused`.
"""

from __future__ import annotations

from psycopg2 import errorcodes

from failover.causes import NOT_KEPT, Cause, cause_of, is_answer, reason_of, sqlstate_of


class LedgerError(Exception):
    """Something the ledger did or did not do. `sqlstate`: the server's code, None where there is none.

    `answered`: whether the database itself answered so, rather than the connection failed.
    """

    sqlstate: str | None = None
    answered: bool = False


class LedgerUnavailable(LedgerError):
    """It cannot be reached, did not answer in time, or cannot do its work."""


class LedgerReadOnly(LedgerUnavailable):
    """It takes reads only (SQLSTATE 25006): no connection made before this is to be believed."""


class LedgerUnsuitable(LedgerUnavailable):
    """The database is there and cannot be used as it is. The message is a sentence that says what to do."""


class QueueIsFull(LedgerError):
    """The ledger is away, and this node's queue is at its limit. Nothing was taken."""


class LedgerContradicts(LedgerError):
    """It does not show what this node's copy holds, and its log does not say why. The message names the row."""


class LedgerBusy(LedgerError):
    """Others hold what this needs. Nothing was changed; the same may be sent again."""


class LedgerSlow(LedgerBusy):
    """The ledger ended a statement that took too long. Nothing was changed."""


class NoConnection(LedgerBusy):
    """All connections of this process were in use for too long. The ledger was not asked."""


class LedgerDropped(LedgerError):
    """Fewer rows are there than were written. Nothing was changed; no event and no call is at fault."""

    answered = True


class LedgerRefused(LedgerError):
    """The ledger does not take a value of this: its own fault where others of its kind are taken."""


_MEANING: dict[Cause, type[LedgerError]] = {
    Cause.BUSY: LedgerBusy,
    Cause.DATA: LedgerRefused,
    Cause.READ_ONLY: LedgerReadOnly,
    Cause.SURROUNDINGS: LedgerUnavailable,
}


_OF_STATE: dict[str, type[LedgerError]] = {
    # A server that says so answers others: one that is silent says nothing, and the watchdog ends the wait for it.
    errorcodes.QUERY_CANCELED: LedgerSlow,
    NOT_KEPT: LedgerDropped,
}


def require_kept(table: str, kept: int, meant: int) -> None:
    """Raises `LedgerDropped` where not all rows that were written to `table` are there."""
    if kept != meant:
        raise LedgerDropped(f"{kept} of {meant} rows were written to {table}: a trigger keeps them out")


def no_usage(schema: str | None) -> LedgerUnavailable:
    """The error of a role that may not use the ledger's schema."""
    state = errorcodes.INSUFFICIENT_PRIVILEGE
    meant = LedgerUnavailable(f"SQLSTATE {state}: permission denied for schema {schema}: the role needs USAGE on it")
    meant.sqlstate, meant.answered = state, True
    return meant


def translate(error: BaseException) -> LedgerError:
    """The `LedgerError` that a driver's error means, with `reason_of` as its words."""
    sqlstate = sqlstate_of(error)
    kind = _OF_STATE.get(sqlstate or "", _MEANING[cause_of(error)])
    meant = kind(reason_of(error))
    meant.sqlstate, meant.answered = sqlstate, is_answer(error)
    return meant
