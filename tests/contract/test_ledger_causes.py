"""What a real database says when its surroundings fail, and when a value does: each told apart at the ledger's seam."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from api.ledger.errors import LedgerReadOnly, LedgerRefused, LedgerSlow, LedgerUnavailable
from api.ledger.records import LicenseQuery
from api.ledger.store import Ledger
from tests.support.ledger import batch, event
from tests.support.nodes import opened_ledger, sell


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger


def do(ledger: Ledger, *statements: str) -> None:
    with ledger.database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("table", ["machines", "policies", "licenses"])
def test_a_table_that_is_not_there_is_no_fault_of_the_call(ledger: Ledger, table: str) -> None:
    asks = [LicenseQuery(sell(ledger.database).key_hash)]
    do(ledger, f"ALTER TABLE {table} RENAME TO put_away")
    with pytest.raises(LedgerUnavailable, match=table):
        ledger.look_up(asks)
    do(ledger, f"ALTER TABLE put_away RENAME TO {table}")
    assert ledger.look_up(asks)[0].holding is not None


def test_a_log_that_is_not_there_is_no_fault_of_the_event(ledger: Ledger) -> None:
    one = event(sell(ledger.database))
    do(ledger, "ALTER TABLE events RENAME TO put_away")
    with pytest.raises(LedgerUnavailable, match="events"):
        ledger.append(batch(one))
    do(ledger, "ALTER TABLE put_away RENAME TO events")
    ledger.append(batch(one))


def test_a_server_that_takes_reads_only_says_so(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger:
        one = event(sell(ledger.database))
        with ledger.database.reading() as connection:
            name = connection.scalar(text("SELECT current_database()"))
        do(ledger, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with opened_ledger(postgres_url) as ledger, pytest.raises(LedgerReadOnly, match="SQLSTATE 25006") as told:
        ledger.append(batch(one))
    assert told.value.sqlstate == "25006"


def test_a_statement_that_was_cancelled_says_so(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger:
        with pytest.raises(LedgerSlow) as told, ledger.database.reading() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 50; SELECT pg_sleep(5)"))
        assert told.value.sqlstate == "57014"


def test_a_value_that_the_database_does_not_take_is_a_fault_of_the_data(ledger: Ledger) -> None:
    one = event(sell(ledger.database))
    ledger.append(batch(one))
    with pytest.raises(LedgerRefused) as told:
        ledger.append(batch(one))
    assert one.event_id not in str(told.value), "the words name no row"
