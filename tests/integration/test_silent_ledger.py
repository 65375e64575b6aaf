"""A ledger that falls silent: its host acknowledges, and nothing answers. How long anybody waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.ids import new_id
from api.ledger.database import AcquirePolicy, Database
from api.ledger.errors import LedgerUnavailable
from api.ledger.migrate import upgrade
from api.ledger.records import LicenseQuery
from api.ledger.store import Ledger, ledger_on
from api.node.clock import Clock
from api.signing import key_claim
from tests.support.admin import Admin
from tests.support.nodes import Node, running_node
from tests.support.postgres import PostgresServer
from tests.support.processes import until

_BUDGET_S = 0.3
#: libpq waits for 2 s at the least, and so did whoever needed a connection.
_SOONER_THAN_LIBPQ_S = 1.9


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with contextlib.closing(Database(url, pool_size=1)) as database:
        upgrade(database)
        yield database


def ledger(database: Database, terms: AcquirePolicy) -> Ledger:
    return ledger_on(database, new_id(), Clock(), budget_s=_BUDGET_S, terms=terms)


def backend(database: Database, terms: AcquirePolicy) -> int:
    """The server process of the connection that is given on these terms."""
    with database.driver(terms) as connection:
        return int(connection.info.backend_pid)


def test_a_connection_that_does_not_come_about_costs_the_budget(server: PostgresServer, database: Database) -> None:
    hurried = ledger(database, AcquirePolicy(connect_s=_BUDGET_S))
    database.close()
    server.freeze()
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable):
        hurried.look_up([LicenseQuery("nobody")])
    assert time.monotonic() - began < _SOONER_THAN_LIBPQ_S
    server.thaw()
    assert hurried.look_up([LicenseQuery("nobody")])[0].holding is None


def test_who_waits_behind_a_silence_does_not_wait_for_it_again(server: PostgresServer, database: Database) -> None:
    hurried = ledger(database, AcquirePolicy(connect_s=60))
    hurried.look_up([LicenseQuery("nobody")])
    server.freeze()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hurried.look_up, [LicenseQuery("nobody")])
        until(lambda: database._free._value == 0, "the connection is taken")
        second = pool.submit(hurried.look_up, [LicenseQuery("nobody")])
        assert isinstance(first.exception(60), LedgerUnavailable)
        assert str(second.exception(60)) == "another call found it silent"
    server.thaw()


def test_nobody_waits_for_a_connection_of_a_node_that_is_cut_off(database: Database) -> None:
    isolated = threading.Event()
    hurried = ledger(database, AcquirePolicy(given_up=isolated.is_set))
    with database.reading(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hurried.look_up, [LicenseQuery("nobody")])
        isolated.set()
        error = waiting.exception(60)
    assert isinstance(error, LedgerUnavailable)
    assert isinstance(error.__cause__, PoolTimeout)


def test_a_connection_from_before_the_silence_is_not_believed(database: Database) -> None:
    before = backend(database, AcquirePolicy())
    assert backend(database, AcquirePolicy()) == before
    now = time.monotonic()
    after = backend(database, AcquirePolicy(not_before=lambda: now))
    assert after != before
    assert backend(database, AcquirePolicy(not_before=lambda: now)) == after


# -- a node -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def node(url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(url, tmp_path, LEDGER_BUDGET=str(_BUDGET_S)) as node:
        yield node


def sold(node: Node) -> str:
    """The key of a license that the node has in its copy."""
    key = str(Admin(node).license()["key"])
    until(lambda: node.runtime.reader.has_key(key_claim(key)), "a copy of the license")
    return key


def test_a_silence_that_nobody_asked_into_costs_no_client_anything(server: PostgresServer, node: Node) -> None:
    key, state = sold(node), node.runtime.state
    server.freeze()
    until(lambda: state.breaker.isolated_since is not None, "the supervisor has noticed")
    answer = node.call("validate", key)
    assert (answer.code, answer.body["durability"]) == ("VALID", "queue")
    server.thaw()
    until(lambda: state.breaker.isolated_since is None, "the node is back at its ledger", 60)


@pytest.mark.parametrize("act", ["validate", "usage"])
def test_a_call_that_finds_a_silent_ledger_without_a_connection_is_answered_in_time(
    server: PostgresServer, node: Node, act: str
) -> None:
    key, began = sold(node), time.monotonic()
    assert node.insist(act, key, request_id="before-the-silence").code == "VALID"
    usual = time.monotonic() - began
    node.runtime.jobs.stop()  # its poll would connect first
    server.freeze()
    node.runtime.state.breaker.reconnected()
    node.database.close()
    began = time.monotonic()
    answer = node.call(act, key)
    # Held against what a call takes on this machine: others may be using it.
    assert time.monotonic() - began < _SOONER_THAN_LIBPQ_S + 10 * usual
    assert (answer.code, answer.body["durability"]) == ("VALID", "queue")
    server.thaw()
