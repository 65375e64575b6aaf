"""What a node asks of its ledger while nobody asks it anything, and that it is as good as ever when somebody does.

What is asserted is recorded history: the messages that came over the wire.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from api.ledger import permitted_keys, tables
from api.ledger.database import Database
from api.licensing import ALWAYS, Watch
from api.node.clock import Clock
from api.signing import KeyStatus, generate
from api.snapshot.reader import MAX_AGE_S
from api.supervisor.duties.rows import put
from api.supervisor.ledger_poll import LedgerPoll
from tests.chaos.cluster.links import Link, network
from tests.support.admin import Admin
from tests.support.nodes import rows, running_node
from tests.support.processes import free_port, until
from tests.support.wire import Overheard

_QUIET_S = 10.0
#: In `_QUIET_S` seconds a node that leads beats and renews seven times each, and looks after its duties. A standby and
#: a worker add nothing. Twice that is for a machine on which everything comes in bursts.
_MOST = 60


@pytest.fixture
def link(postgres_url: str) -> Iterator[tuple[Link, str]]:
    """A way to the database on which every message is overheard, and the URL by it."""
    host, _, rest = postgres_url.partition("@")[2].partition("/")
    target = int(host.partition(":")[2] or 5432)
    with network() as net:
        link = net.link(free_port(), target, host.partition(":")[0])
        yield link, postgres_url.replace(f"{host}/{rest}", f"127.0.0.1:{link.port}/{rest}")


def listening(link: Link) -> Overheard:
    overheard = Overheard()
    link.tap = overheard
    return overheard


def rests(overheard: Overheard) -> bool:
    """Whether nothing but the beat's round has been asked for a while: whoever was asked last is done."""
    return len(overheard.since(time.monotonic() - 3.0)) < 16


@pytest.mark.slow
def test_a_node_that_nobody_asks_sends_few_messages_and_its_workers_none(
    link: tuple[Link, str], tmp_path: Path
) -> None:
    overheard = listening(link[0])
    with running_node(link[1], tmp_path, FAILBACK_DELAY="30") as node:
        until(lambda: rests(overheard), "a node at rest", 60)
        began = time.monotonic()
        time.sleep(_QUIET_S)
        asked = overheard.since(began)
        assert len(asked) <= _MOST, [message.text[:80] for message in asked]
        assert not any("FROM unnest" in message.text for message in asked), "a worker looked something up"
        assert sum("heartbeats" in message.text for message in asked) >= 3, "it beats"
        assert node.http.get("/readyz").status_code == 200
        assert node.runtime.ledger_reachable


@pytest.mark.slow
def test_its_first_call_after_a_pause_reads_the_ledger_and_then_the_copy_is_fresh_again(
    link: tuple[Link, str], tmp_path: Path
) -> None:
    overheard = listening(link[0])
    with running_node(link[1], tmp_path) as node:
        license = Admin(node).license()
        node.runtime.reader.max_age_s = MAX_AGE_S
        until(lambda: rests(overheard), "a node at rest", 60)
        asked = lambda: sum("FROM unnest" in message.text for _, message in overheard.messages)  # noqa: E731

        def from_the_copy() -> bool:
            before = asked()
            assert node.call("validate", license["key"]).code == "VALID"
            return asked() == before

        until(lambda: time.monotonic() - node.runtime.reader._known_position().polled_at > MAX_AGE_S, "an old copy")  # type: ignore[union-attr]
        until(from_the_copy, "an answer from the copy")


def test_a_worker_whose_supervisor_falls_silent_asks_by_itself_and_tells_the_truth(
    link: tuple[Link, str], tmp_path: Path
) -> None:
    overheard = listening(link[0])
    with running_node(link[1], tmp_path) as node:
        until(lambda: node.runtime.polling.supervisor_answered_at > 0, "it was told")
        node.runtime._stop.set()  # its supervisor ends; the worker's own jobs go on
        until(lambda: asks(overheard), "the worker asks by itself", 60)
        assert node.runtime.ledger_reachable
        link[0].refuse()
        until(lambda: not node.runtime.ledger_reachable, "it says that the ledger is away", 60)
        link[0].heal()
        until(lambda: node.runtime.ledger_reachable, "and that it is back", 60)


def asks(overheard: Overheard) -> bool:
    return any("FROM unnest" in message.text for message in overheard.since(time.monotonic() - 2.0))


# -- one look ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with contextlib.closing(Database(ledger_url)) as database:
        yield database


def poll(ledger_poll: LedgerPoll, database: Database) -> Any:
    with database.reading() as connection:
        result = ledger_poll.poll(connection, None)
    ledger_poll.keep(result)
    return result


def test_keys_are_told_once_and_again_when_anything_of_them_changes(database: Database) -> None:
    ledger_poll, (one, two) = LedgerPoll(), (generate(), generate())
    assert poll(ledger_poll, database).keys == "[]"
    permitted_keys.found(database, [one, two], 0.0)
    for status in (KeyStatus.NEXT, KeyStatus.CURRENT, KeyStatus.REVOKED):
        with database.writing() as connection:
            permitted_keys.write(connection, two.kid, status, 1.0)  # behind the log's back
        result = poll(ledger_poll, database)
        assert ledger_poll.keys is not None
        assert ledger_poll.keys.statuses == {one.kid: "current", two.kid: status}
        assert ledger_poll.keys.jwks[one.kid] == one.public_jwk
        again = poll(ledger_poll, database)
        assert result.keys is not None
        assert again.keys is None or database.is_sqlite
    with database.writing() as connection:
        connection.execute(tables.signing_keys.delete())
    poll(ledger_poll, database)
    assert ledger_poll.keys.statuses == {}


def test_which_ledger_it_is_is_said_once_and_again_when_another_takes_its_place(database: Database) -> None:
    ledger_poll, (row,) = LedgerPoll(), rows(database, tables.ledger)
    for id in (row["ledger_id"], "another"):
        with database.writing() as connection:
            connection.execute(update(tables.ledger).values(ledger_id=id))
        assert poll(ledger_poll, database).ledger_id == ledger_poll.ledger_id == id
        again = poll(ledger_poll, database)
        assert again.ledger_id is None or database.is_sqlite
        assert ledger_poll.ledger_id == id


@pytest.mark.parametrize("until_", [1_764_000_000.125, float("inf")])
def test_the_watch_is_told_to_the_last_digit(database: Database, until_: float) -> None:
    ledger_poll, timeout = LedgerPoll(), 6.0
    assert poll(ledger_poll, database).watch(timeout, Clock()) == ALWAYS
    now = time.time()
    with database.writing() as connection:
        put(connection, tables.watch, [{"id": 1, "since": now / 3, "until": until_, "looked_at": now}])
    assert poll(ledger_poll, database).watch(timeout, Clock()) == Watch(now / 3, until_)
    with database.writing() as connection:
        connection.execute(update(tables.watch).values(looked_at=now - 60))
    counted = Watch(now / 3, min(until_, now - 60))
    assert poll(ledger_poll, database).watch(timeout, Clock()) == counted, "nobody has looked since"


def test_a_ledger_with_nothing_in_it_is_no_error_of_a_look(database: Database) -> None:
    with database.writing() as connection:
        (row,) = connection.execute(tables.ledger.select()).mappings()
        connection.execute(tables.ledger.delete())
    result = poll(LedgerPoll(), database)
    assert (result.head, result.stands) == (0, False)
    with database.writing() as connection:
        connection.execute(insert(tables.ledger), dict(row))
