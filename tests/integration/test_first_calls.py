"""What a node that has just started says of machines and licenses that were silent: what the cluster knows, or nothing.

A denial for silence that nobody has watched over would be a wrong one, and no denial where there is one a flake.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.ledger import tables
from api.ledger.database import Database
from api.snapshot import Follower
from api.supervisor import supervise as process
from api.supervisor.duties.rows import put
from failover import Identity, SqlLeaseStore
from tests.support.leading import add_machine
from tests.support.nodes import Node, Sold, running_node, sell, starting_node

_DAY_S = 86_400
_INF = float("inf")


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with contextlib.closing(Database(ledger_url)) as database:
        yield database


def silent(database: Database) -> tuple[Sold, Sold]:
    """A license with a machine, `here`, that is dead by its heartbeat but keeps its seat, and one that is overdue."""
    dead, overdue = sell(database, {"machine_heartbeat_s": 600, "cull": "keep"}), sell(database, {"check_in_days": 7})
    add_machine(database, dead, "here", heartbeat_at=time.time() - 700)
    with database.writing() as connection:
        licenses = tables.licenses
        late = licenses.update().where(licenses.c.id == overdue.id).values(checked_in_at=time.time() - 8 * _DAY_S)
        connection.execute(late)
    return dead, overdue


def trouble_of(node: Node, dead: Sold, overdue: Sold) -> tuple[str, str]:
    return node.call("validate", dead.key, fingerprint="here").code, node.call("validate", overdue.key).code


def looked(database: Database, **found: Any) -> None:
    """What a leader found at its last look."""
    with database.writing() as connection:
        put(connection, tables.watch, [{"id": 1, "since": None, "until": _INF, "looked_at": time.time(), **found}])


def test_the_first_call_is_judged_by_what_the_cluster_has_watched(
    ledger_url: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the copy of the ledger takes its time."""
    sold, follow = silent(database), Follower.poll

    def slowly(follower: Follower) -> bool:
        time.sleep(2)
        return follow(follower)

    monkeypatch.setattr(Follower, "poll", slowly)
    with running_node(ledger_url, tmp_path) as node:
        assert trouble_of(node, *sold) == ("HEARTBEAT_DEAD", "OVERDUE")


def test_silence_while_nobody_looked_counts_against_nobody(ledger_url: str, database: Database, tmp_path: Path) -> None:
    """The cluster was off for nine days, and whoever leads now has not looked yet."""
    sold = silent(database)
    looked(database, looked_at=time.time() - 9 * _DAY_S)
    assert SqlLeaseStore(database).acquire(Identity("another", "another", 2), 600.0) == 1
    with running_node(ledger_url, tmp_path) as node:
        assert trouble_of(node, *sold) == ("VALID", "VALID")


def test_silence_does_not_count_where_no_supervisor_says_so(
    ledger_url: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = silent(database)
    looked(database, since=time.time())
    monkeypatch.setattr(process, "supervise", lambda *_, **__: None)
    with starting_node(ledger_url, tmp_path) as node:
        assert trouble_of(node.ready(), *sold) == ("VALID", "VALID")
