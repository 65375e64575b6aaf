"""What a database's error speaks of (the data, other sessions, the surroundings), and its words without secrets.

One classification for the lease, the queue's replay and everybody else who talks to a database.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from enum import Enum

import psycopg2
from filelock import Timeout as LockTimeout
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Cause(Enum):
    """What an error speaks of.

    `BUSY`: other sessions hold what this needs. `DATA`: a value of what was sent (SQLSTATE classes 22 and 23, and what
    a driver could not send at all). Whether the data is at fault is not known by that: a constraint that an operator
    added refuses everything. `READ_ONLY`: the server takes reads only. `SURROUNDINGS`: all the rest.
    """

    BUSY = "busy"
    DATA = "data"
    READ_ONLY = "read only"
    SURROUNDINGS = "surroundings"


#: Raised by `require_kept` of migration 0006: a trigger or a rule kept rows out, or changed what is written.
NOT_KEPT = "PR001"
_NOT_KEPT = "rows that were written are not there: a trigger or a rule of this database keeps them out"
#: What stands in place of words that somebody wrote into a function: they may be about anything.
_RAISED = "a trigger or function of this database raised an error of its own, which stands in this node's log"
_BUSY = {errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED, errorcodes.SERIALIZATION_FAILURE}
#: Data exceptions and integrity violations. 42, 25, 57, 53, 08, 28, 3D, 3F, 54, 58, XX and others name no value.
_DATA_CLASSES = ("22", "23")
#: Their words may repeat a value that was sent.
_SILENT_CLASSES = ("22", errorcodes.SYNTAX_ERROR)
#: Lines of a server's message that repeat rows, parameters or statements.
_REPEATS = re.compile(r"^\s*(DETAIL|CONTEXT|STATEMENT|QUERY|WHERE|LINE \d+):|^\s*\^\s*$")
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s@:]*):[^\s\"]*@")
_NAMED_PASSWORD = re.compile(r"(pass(?:word|file)?\s*=\s*)('[^']*'|[^\s&\"]+)", re.IGNORECASE)
#: What libpq quotes of a URL that it cannot take apart may be a piece of the password.
_PIECE_OF_URL = re.compile(r"(encoded token|integer value|port number):? \"[^\"]*\"")
_BEFORE_AN_AT = re.compile(r"\"[^\"\s]*@")
_LONGEST = 300
#: What a statement, a connection or the lock of a SQLite file may raise.
DRIVER_ERRORS = (DBAPIError, PoolTimeout, psycopg2.Error, sqlite3.Error, OSError)
#: Whose words need their type beside them: what this project raises is a sentence.
_DRIVERS = (psycopg2.Error, sqlite3.Error, OSError)


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE that a server gave; None where the error is not a server's answer."""
    state = getattr(_driver_error(error), "pgcode", None)
    return None if state is None else str(state)


def is_answer(error: BaseException) -> bool:
    """Whether the error is the database's own answer, not a fault of the connection to it. A file always answers."""
    return sqlstate_of(error) is not None or isinstance(_driver_error(error), sqlite3.Error)


def cause_of(error: BaseException) -> Cause:
    """What a driver's error, perhaps wrapped by SQLAlchemy, speaks of."""
    cause = _driver_error(error)
    if isinstance(cause, LockTimeout):
        return Cause.BUSY
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause)
    state = sqlstate_of(cause)
    if state in _BUSY:
        return Cause.BUSY
    if state == errorcodes.READ_ONLY_SQL_TRANSACTION:
        return Cause.READ_ONLY
    if state is not None:
        return Cause.DATA if state.startswith(_DATA_CLASSES) else Cause.SURROUNDINGS
    return Cause.DATA if _was_never_sent(cause) else Cause.SURROUNDINGS


def reason_of(error: BaseException) -> str:
    """Why a database refuses, in one line: SQLSTATE and its own words.

    Without passwords, parameters of statements and what repeats the contents of rows; for words that are not the
    server's own, see `words_of_a_function`.
    """
    cause = _driver_error(error)
    state = sqlstate_of(cause)
    if isinstance(cause, PoolTimeout):
        return "no connection of the pool became free"
    if isinstance(cause, LockTimeout):
        return "another process is writing"
    if state is None:
        message, name = _masked(str(cause)), type(cause).__name__
        return (f"{name}: {message}" if isinstance(cause, _DRIVERS) else message) if message else name
    if state == NOT_KEPT:
        return f"SQLSTATE {state}: {_NOT_KEPT}"
    if words_of_a_function(cause) is not None:
        return f"SQLSTATE {state}: {_RAISED}"
    words = type(cause).__name__ if state.startswith(_SILENT_CLASSES) else _masked(_message_of(cause))
    return f"SQLSTATE {state}: {words}".removesuffix(": ")


def words_of_a_function(error: BaseException) -> str | None:
    """What a function of the database, in whatever language, said of itself; None where the words are the server's."""
    cause = _driver_error(error)
    diag = getattr(cause, "diag", None)
    # The file of the server's source that an error comes from: those of the languages begin so (pl_exec.c, plperl.c).
    is_raised = str(getattr(diag, "source_file", None) or "").startswith("pl")
    return _masked(_message_of(cause)) if is_raised or (sqlstate_of(cause) or "").startswith("P0") else None


@contextlib.contextmanager
def translated(translate: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Raises, in place of a driver's error in the block, what `translate` makes of it."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error


def _driver_error(error: BaseException) -> BaseException:
    """What SQLAlchemy wrapped, or the error itself."""
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) else error


def _of_sqlite(cause: sqlite3.Error) -> Cause:
    message = str(cause)
    if isinstance(cause, (sqlite3.IntegrityError, sqlite3.DataError)):
        return Cause.DATA
    if isinstance(cause, sqlite3.ProgrammingError):
        return Cause.SURROUNDINGS if "closed" in message else Cause.DATA
    if isinstance(cause, sqlite3.OperationalError) and "locked" in message:
        return Cause.BUSY
    return Cause.READ_ONLY if "readonly" in message else Cause.SURROUNDINGS


def _was_never_sent(cause: BaseException) -> bool:
    """Whether the driver itself could not make a statement of what it was given."""
    if isinstance(cause, psycopg2.DataError):
        return True
    return isinstance(cause, psycopg2.ProgrammingError) and not str(cause).startswith("invalid dsn")


def _message_of(cause: BaseException) -> str:
    """A server's message without the lines beneath it."""
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)
    return str(primary or cause)


def _masked(message: str) -> str:
    """One line of at most 300 characters, without passwords."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not _REPEATS.match(line)]
    line = _URL_PASSWORD.sub(r"\1:***@", "; ".join(lines))
    line = _NAMED_PASSWORD.sub(r"\1***", line)
    line = _PIECE_OF_URL.sub(r'\1 "***"', line)
    line = _BEFORE_AN_AT.sub('"***@', line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
