"""What an error of a database speaks of, and what of its words may be shown."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg2
import pytest
from filelock import Timeout as LockTimeout
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.ledger import errors as ledger
from failover import errors
from failover.causes import Cause, cause_of, reason_of, sqlstate_of, words_of_a_function


def said(state: str | None, words: str = "") -> psycopg2.Error:
    """A server's answer with this SQLSTATE."""
    kind = type("ServerError", (psycopg2.DatabaseError,), {"pgcode": state})
    error = kind(words)
    assert isinstance(error, psycopg2.Error)
    return error


SURROUNDINGS = [
    "42P01",  # a table that is not there
    "42703",  # a column
    "42501",  # a right, and a row that row level security does not let in
    "42601",  # syntax
    "42883",  # a function
    "25P02",  # a transaction that has failed
    "57P01",  # shut down by an administrator
    "57P03",  # starting up
    "53100",  # disk full
    "53200",  # out of memory
    "53300",  # too many connections
    "08006",  # connection lost
    "28P01",  # wrong password
    "3D000",  # no such database
    "3F000",  # no such schema
    "54001",  # statement too complex
    "55000",  # not in the state for it
    "58030",  # I/O error
    "XX000",  # internal error
    "XX001",  # a damaged table
    "P0001",  # raised by somebody's trigger
    "0A000",  # not supported
]


@pytest.mark.parametrize("state", SURROUNDINGS)
def test_what_no_value_can_be_blamed_for_is_of_the_surroundings(state: str) -> None:
    assert cause_of(said(state)) is Cause.SURROUNDINGS
    told = ledger.translate(DBAPIError("SELECT 1", {}, said(state, "so it says")))
    assert type(told) is ledger.LedgerUnavailable
    assert told.sqlstate == state
    assert type(errors.translate(said(state))) is errors.StoreUnavailable


def test_a_statement_that_was_ended_for_its_length_says_nothing_of_the_others() -> None:
    told = ledger.translate(said("57014"))
    assert (type(told), told.sqlstate) == (ledger.LedgerSlow, "57014")
    assert type(errors.translate(said("57014"))) is errors.StoreUnavailable


@pytest.mark.parametrize("state", ["22001", "22021", "22P02", "22003", "23502", "23503", "23505", "23514"])
def test_what_speaks_of_a_value_is_of_the_data(state: str) -> None:
    assert type(ledger.translate(said(state))) is ledger.LedgerRefused
    assert type(errors.translate(said(state))) is errors.StoreUnavailable


@pytest.mark.parametrize("state", ["55P03", "40P01", "40001"])
def test_what_others_hold_is_busy(state: str) -> None:
    assert type(ledger.translate(said(state))) is ledger.LedgerBusy
    assert type(errors.translate(said(state))) is errors.StoreBusy


def test_a_server_that_takes_reads_only_can_be_told_by_its_type() -> None:
    assert type(ledger.translate(said("25006"))) is ledger.LedgerReadOnly
    assert type(errors.translate(said("25006"))) is errors.StoreReadOnly
    told = sqlite3.OperationalError("attempt to write a readonly database")
    assert type(ledger.translate(told)) is ledger.LedgerReadOnly
    assert issubclass(ledger.LedgerReadOnly, ledger.LedgerUnavailable)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (sqlite3.OperationalError("no such table: machines"), Cause.SURROUNDINGS),
        (sqlite3.OperationalError("no such column: l.seats"), Cause.SURROUNDINGS),
        (sqlite3.OperationalError("disk I/O error"), Cause.SURROUNDINGS),
        (sqlite3.OperationalError("database or disk is full"), Cause.SURROUNDINGS),
        (sqlite3.OperationalError("unable to open database file"), Cause.SURROUNDINGS),
        (sqlite3.DatabaseError("database disk image is malformed"), Cause.SURROUNDINGS),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), Cause.SURROUNDINGS),
        (sqlite3.OperationalError("database is locked"), Cause.BUSY),
        (sqlite3.IntegrityError("UNIQUE constraint failed: events.event_id"), Cause.DATA),
        (sqlite3.DataError("string or blob too big"), Cause.DATA),
        (sqlite3.ProgrammingError("Error binding parameter 1: type 'dict' is not supported"), Cause.DATA),
        (psycopg2.ProgrammingError("can't adapt type 'object'"), Cause.DATA),
        (psycopg2.ProgrammingError('invalid dsn: invalid URI query parameter: "pgbouncer"'), Cause.SURROUNDINGS),
        (psycopg2.InterfaceError("connection already closed"), Cause.SURROUNDINGS),
        (psycopg2.OperationalError("server closed the connection unexpectedly"), Cause.SURROUNDINGS),
        (PoolTimeout("QueuePool limit"), Cause.SURROUNDINGS),
        (ConnectionRefusedError("refused"), Cause.SURROUNDINGS),
        (TimeoutError(), Cause.SURROUNDINGS),
    ],
    ids=lambda value: str(value),
)
def test_errors_without_a_code_are_told_by_their_kind(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause
    assert sqlstate_of(error) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            said("42501", "permission denied for table machines\n"),
            "SQLSTATE 42501: permission denied for table machines",
        ),
        (
            said("23505", 'duplicate key value violates unique constraint "k"\nDETAIL:  Key (id)=(secret-1) exists.'),
            'SQLSTATE 23505: duplicate key value violates unique constraint "k"',
        ),
        (said("22P02", 'invalid input syntax for type integer: "secret-1"'), "SQLSTATE 22P02: ServerError"),
        (said("42601", 'syntax error at or near "secret-1"\nLINE 1: SELECT secret-1'), "SQLSTATE 42601: ServerError"),
        (sqlite3.OperationalError("no such table: machines"), "OperationalError: no such table: machines"),
        (PoolTimeout("QueuePool limit of size 1"), "no connection of the pool became free"),
        (TimeoutError(), "TimeoutError"),
        (ledger.LedgerUnavailable("another call found it silent"), "another call found it silent"),
        (
            psycopg2.OperationalError('connection to server at "db" failed: FATAL:  database "x" does not exist\n'),
            'OperationalError: connection to server at "db" failed: FATAL:  database "x" does not exist',
        ),
        (
            psycopg2.OperationalError("at one: refused\n\tIs it running?\nat two: refused\n"),
            "OperationalError: at one: refused; Is it running?; at two: refused",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_reason_is_one_line_of_the_servers_own_words(error: Exception, words: str) -> None:
    assert reason_of(error) == words


@pytest.mark.parametrize(
    "words",
    [
        "could not connect to postgresql://protecao:s3cret-1@db:5432/x?sslmode=require",
        "could not connect to postgresql://protecao:s3cret-1/with@signs@db:5432/x",
        'invalid dsn: invalid percent-encoded token: "s3cret-1"',
        'invalid dsn: missing "=" after "postgres:protecao:s3cret-1@db" in connection info string',
        'invalid integer value "s3cret-1" for connection option "port"',
        'invalid port number: "s3cret-1"',
        'could not translate host name "s3cret-1@db" to address: Name or service not known',
        "host=db password=s3cret-1 user=protecao",
        "host=db password='s3cret-1 with spaces' user=protecao",
    ],
)
def test_no_password_is_in_a_reason(words: str) -> None:
    assert "s3cret-1" not in reason_of(psycopg2.OperationalError(words))


@pytest.mark.parametrize(
    "words",
    ['could not translate host name "db.exmaple.com" to address', 'invalid sslmode value: "required"'],
)
def test_what_is_wrong_and_no_secret_is_shown(words: str) -> None:
    assert words in reason_of(psycopg2.OperationalError(words))


def test_a_reason_is_never_long() -> None:
    assert len(reason_of(sqlite3.OperationalError("x" * 5_000))) < 400


def test_a_file_that_another_process_writes_is_busy_to_both_seams(tmp_path: Path) -> None:
    error = LockTimeout(str(tmp_path / "ledger.db.lock"))
    assert cause_of(error) is Cause.BUSY
    assert type(errors.translate(error)) is errors.StoreBusy
    busy = ledger.translate(error)
    assert (type(busy), str(busy), busy.answered) == (ledger.LedgerBusy, "another process is writing", False)


def test_words_that_somebody_wrote_into_a_function_are_not_shown() -> None:
    told = said("P0001", "secret of a vendor")
    assert "secret" not in reason_of(told)
    assert "SQLSTATE P0001" in reason_of(told)
    assert words_of_a_function(told) == "secret of a vendor"
    assert words_of_a_function(said("53100", "disk full")) is None
