"""What can go wrong with the ledger, split by what the caller can do next.

LedgerError
├── LedgerUnavailable   it cannot be reached or did not answer in time: another node may, or later
├── QueueIsFull         the same, and this node's queue has no room for what it would have taken
├── LedgerBusy          it answered that others hold the rows: the same again, a moment later
└── LedgerRefused       it will never take this: a fault in what was sent
"""

from __future__ import annotations

import sqlite3

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class LedgerError(Exception):
    """Something the ledger did or did not do."""


class LedgerUnavailable(LedgerError):
    """It cannot be reached, or did not answer in time."""


class QueueIsFull(LedgerError):
    """The ledger is away, and this node's queue is at its limit. Nothing was taken."""


class LedgerBusy(LedgerError):
    """Others hold what this needs. Nothing was changed; the same may be sent again."""


class LedgerRefused(LedgerError):
    """The ledger will not take this, however often it is sent."""


_BUSY = {
    errorcodes.LOCK_NOT_AVAILABLE,
    errorcodes.DEADLOCK_DETECTED,
    errorcodes.SERIALIZATION_FAILURE,
}
#: SQLSTATE classes that speak of the data sent; everything else may pass, and is an outage.
_REFUSED_CLASSES = ("22", "23", "42")

#: What a statement or a connection may raise, below `LedgerError`.
DRIVER_ERRORS = (DBAPIError, PoolTimeout, psycopg2.Error, sqlite3.Error, OSError, TimeoutError)


def translate(error: BaseException) -> LedgerError:
    """The `LedgerError` that a driver's error means."""
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "pgcode", None)
    if state in _BUSY or (isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause)):
        return LedgerBusy("others hold what this needs")
    refused = isinstance(cause, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError))
    if refused or (state is not None and state.startswith(_REFUSED_CLASSES)):
        return LedgerRefused(type(cause).__name__)
    # SQLite's words are of the file and its disk; a server's may repeat what was sent.
    said = f": {cause}" if isinstance(cause, sqlite3.Error) else ""
    return LedgerUnavailable(f"{type(cause).__name__}{said}")
