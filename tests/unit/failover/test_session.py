"""What goes before the statements of a message, and when a process gives up the connections that it has."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

from api.snapshot import source_of
from failover.engines import Pools, libpq_url
from failover.session import Limits, Session, taken_apart, with_schema

_LIMITS = Limits(statement_ms=1_500, lock_ms=200, idle_ms=3_000)
_MEANT = (
    "row_security = off",
    "timezone = 'UTC'",
    "synchronous_commit = on",
    'search_path = "ledger", pg_temp',
    "statement_timeout = 1500",
    "lock_timeout = 200",
    "idle_in_transaction_session_timeout = 3000",
)


@pytest.mark.parametrize("text", [Session("ledger").alone(_LIMITS), Session("ledger").begin(_LIMITS)])
def test_all_is_set_for_the_transaction_and_nothing_for_the_session(text: str) -> None:
    statements = [one.strip() for one in text.split(";") if one.strip()]
    assert {f"SET LOCAL {one}" for one in _MEANT} <= set(statements)
    assert all(one.startswith(("SET LOCAL ", "BEGIN ISOLATION LEVEL ")) for one in statements)
    # The session's own time-out runs from the head of the message: it is stopped before another is set.
    assert statements.index("SET LOCAL statement_timeout = 0") < statements.index("SET LOCAL statement_timeout = 1500")
    assert "READ COMMITTED" in text.upper()


def test_nothing_makes_a_read_only_server_writable() -> None:
    said = Session("a").begin(_LIMITS) + Session("a").alone(_LIMITS)
    assert "read_only" not in said
    assert "READ WRITE" not in said


def test_a_schema_is_set_only_where_one_is_meant() -> None:
    assert "search_path" not in Session(None).alone(_LIMITS)
    with pytest.raises(ValueError, match="lower-case"):
        Session('x"; DROP SCHEMA public; --')


@pytest.mark.parametrize("url", ["postgres://u:p@h/db", "postgresql+psycopg2://u:p@h,i/db?sslmode=require"])
def test_a_url_carries_the_schema_and_libpq_never_sees_it(url: str) -> None:
    assert taken_apart(with_schema(url, "mine")) == (url, "mine")
    assert taken_apart(url) == (url, None)
    assert libpq_url(with_schema(url, "mine")) == libpq_url(url)


def test_another_schema_is_another_ledger() -> None:
    url = "postgresql://u:p@h/db"
    assert source_of(with_schema(url, "public")) == source_of(url)
    assert len({source_of(url), source_of(with_schema(url, "one")), source_of(with_schema(url, "two"))}) == 3


def test_pools_are_renewed_together_and_not_more_often_than_every_two_seconds() -> None:
    now = 100.0
    pools = Pools(lambda: now)
    engines = [create_engine("sqlite://"), create_engine("sqlite://")]
    before = [engine.pool for engine in engines]
    for engine in engines:
        pools.add(engine)
    assert pools.renew()
    assert all(engine.pool is not pool for engine, pool in zip(engines, before, strict=True))
    now = 101.9
    assert not pools.renew()
    now = 102.0
    assert pools.renew()
