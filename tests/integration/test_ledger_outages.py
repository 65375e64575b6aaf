"""A ledger that is down, goes away, freezes or breaks off: what callers are told, how soon, and that it passes."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.event import listens_for

from api.checks import recorder
from api.checks.batcher import identity
from api.checks.recorder import Recorder
from api.checks.unit_of_work import Operation
from api.ids import new_id
from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerUnavailable
from api.ledger.migrate import upgrade
from api.ledger.records import Batch, Event, LicenseQuery, Tally
from api.ledger.store import Ledger
from api.licensing import Act, Call
from api.node.clock import Clock
from api.node.identity import Node as NodeIdentity
from tests.support.admin import Admin
from tests.support.nodes import (
    Node,
    Sold,
    events_of,
    license_row,
    opened_ledger,
    rows,
    running_node,
    sell,
    starting_node,
)
from tests.support.postgres import PostgresServer
from tests.support.processes import until

#: Every wait of a node ends within about 5 s; the rest is for noisy machines.
_ANSWERED_WITHIN_S = 5 + 3


def timed(node: Node, sold: Sold, act: str = "validate") -> tuple[int, str, float]:
    """Status, code and seconds taken."""
    began = time.monotonic()
    answer = node.call(act, sold.key)
    return answer.status, answer.code, time.monotonic() - began


def serves_again(node: Node, sold: Sold) -> None:
    """Waits until it gives verdicts by itself, in both lanes."""
    until(lambda: timed(node, sold)[:2] == (200, "VALID"), "a verdict")
    assert timed(node, sold, "usage")[:2] == (200, "VALID")
    until(lambda: node.http.get("/readyz").status_code == 200, "a ready node")


# -- down at the start ----------------------------------------------------------------------------------------------


def test_a_ledger_that_is_down_at_the_start_is_waited_for_and_served_without_a_restart(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    server.stop()
    with starting_node(url, tmp_path) as node:
        refused = node.call("validate", "nobody-has-this-key")
        assert (refused.status, refused.code) == (503, "STARTING")
        assert refused.body["detail"].startswith("waiting for the ledger")
        assert refused.response.headers["Retry-After"]
        assert node.http.get("/livez").status_code == 200
        for path in ("/readyz", "/health"):
            told = node.http.get(path)
            assert told.status_code == 503
            assert told.json["waiting_for"].startswith("the ledger")  # type: ignore[index]
        assert node.http.get("/.well-known/jwks.json").status_code == 503
        server.start()
        node.ready()
        assert node.call("validate", sell(node.database).key).code == "VALID"


def test_bad_input_comes_before_a_node_that_is_starting(server: PostgresServer, url: str, tmp_path: Path) -> None:
    server.stop()
    with starting_node(url, tmp_path) as node:
        assert node.send("validate", b"[]").code == "MALFORMED"
        assert node.send("validate", b"[]", headers={"X-API-Key": "wrong"}).code == "API_KEY_INVALID"


def test_a_ledger_that_is_frozen_at_the_start_is_waited_for(server: PostgresServer, url: str, tmp_path: Path) -> None:
    server.freeze()
    with starting_node(url, tmp_path) as node:
        time.sleep(1)
        assert node.call("validate", "nobody-has-this-key").code == "STARTING"
        server.thaw()
        node.ready()


# -- going away -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [Act.VALIDATE, Act.USAGE])
def test_a_restart_of_the_ledger_between_two_calls_costs_no_answer(server: PostgresServer, url: str, act: Act) -> None:
    with opened_ledger(url) as ledger:
        upgrade(ledger.database)
        sold, recorder = sell(ledger.database), Recorder(ledger, NodeIdentity("n"), Clock())
        with ledger.database.reading(), ledger.database.reading():
            pass  # now both connections of the pool are there, and about to be ended
        server.restart()
        call = Operation(call=Call(act=act), key_hash=sold.key_hash, event_id=new_id(), nonce="n", body_hash="b")
        assert recorder.submit(call, identity).verdict.code == "VALID"
        assert [event["event_id"] for event in events_of(ledger.database, sold)] == [call.event_id]


def test_connections_that_are_ended_as_soon_as_they_are_made_are_an_outage(url: str) -> None:
    with contextlib.closing(Database(url)) as database, contextlib.closing(Database(url)) as other:

        @listens_for(database.engine, "connect")
        def end(made: Any, _record: object) -> None:
            with other.reading() as connection:
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": made.info.backend_pid})
            assert select.select([made], [], [], 30)[0], "it is ended"

        for using in (database.reading, database.writing):
            with pytest.raises(LedgerUnavailable), using() as connection:
                connection.execute(text("SELECT 1"))
        with pytest.raises(LedgerUnavailable), database.driver() as raw:
            raw.cursor().execute("SELECT 1")


def test_an_admin_is_not_told_of_a_restart_of_the_ledger_between_two_calls(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    with running_node(url, tmp_path) as node:
        admin = Admin(node)
        product = admin.product()["id"]
        server.restart()
        assert admin.ok("GET", f"/products/{product}")["id"] == product
        server.restart()
        admin.product()


def test_a_transaction_in_hand_ends_when_the_server_freezes(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with running_node(url, tmp_path) as node, opened_ledger(url) as ledger:
        sold = sell(node.database)
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable), ledger.transaction([]):
            server.freeze()
        assert time.monotonic() - began < _ANSWERED_WITHIN_S
        server.thaw()
        serves_again(node, sold)


@pytest.mark.parametrize("method", ["look_up", "append", "has_event"])
def test_no_statement_waits_for_a_frozen_server_for_long(server: PostgresServer, url: str, method: str) -> None:
    with opened_ledger(url) as ledger:
        upgrade(ledger.database)
        calls: dict[str, Callable[[Ledger], object]] = {
            "look_up": lambda ledger: ledger.look_up([LicenseQuery("nobody")]),
            "append": lambda ledger: ledger.append(Batch([], [], [Tally(1, "VALID", True, 1)], [])),
            "has_event": lambda ledger: ledger.has_event("none"),
        }
        calls[method](ledger)  # the connection is there when the server freezes
        server.freeze()
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable):
            calls[method](ledger)
        assert time.monotonic() - began < _ANSWERED_WITHIN_S
        server.thaw()
        calls[method](ledger)


# -- commits in doubt -----------------------------------------------------------------------------------------------


_EVENT: dict[str, Any] = {"type": "t", "node": "n", "instance": "i", "epoch": 0, "mode": "normal"}
_EVENT |= {"occurred_at": 0.0, "data": {}}


class Lossy:
    """A way to Postgres that, once armed, breaks off at the next message that writes events.

    `reply`: the server has done it, and its answer is lost. `at once`: it breaks before the server is done.
    `message`: the server never hears of it. Breaks once; new connections work.
    """

    def __init__(self, target: int, mode: str) -> None:
        self._target = target
        self._mode = mode
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed = False
        self.broken = 0
        self.messages = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._to_server, args=(near, far), daemon=True).start()
                threading.Thread(target=_pass_on, args=(far, near), daemon=True).start()

    def _to_server(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError):
            while data := near.recv(1 << 20):
                self.messages += 1
                if self.armed and b"record_batch(" in data:
                    self._break_off(near, far, data)
                    return
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _break_off(self, near: socket.socket, far: socket.socket, data: bytes) -> None:
        self.armed = False
        self.broken += 1
        near.shutdown(socket.SHUT_WR)  # nothing more reaches the client, whatever the server says
        if self._mode != "message":
            far.sendall(data)
        if self._mode == "reply":
            time.sleep(0.3)
        far.shutdown(socket.SHUT_RDWR)


def _pass_on(far: socket.socket, near: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := far.recv(1 << 20):
            near.sendall(data)
    with contextlib.suppress(OSError):
        near.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def lossy(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[Lossy, str]]:
    port = urlsplit(postgres_url).port
    assert port is not None
    way = Lossy(port, request.param)
    yield way, postgres_url.replace(f":{port}/", f":{way.port}/")
    way.close()


@pytest.mark.parametrize("lossy", ["reply"], indirect=True)
def test_a_check_costs_two_messages_to_the_server_and_so_does_a_change(lossy: tuple[Lossy, str]) -> None:
    """Each is a round trip, which may be 25 ms; and whatever else were sent, nothing would guard it."""
    way, url = lossy
    with opened_ledger(url) as ledger:
        sold = sell(ledger.database)
        asks, event = [LicenseQuery(sold.key_hash)], Event(**_EVENT, event_id=str(uuid.uuid4()))

        def change() -> None:
            with ledger.transaction(asks) as transaction:
                transaction.commit(Batch([Event(**_EVENT, event_id=str(uuid.uuid4()))], [], [], []))

        def change_nothing() -> None:
            with ledger.transaction(asks):
                pass

        calls: list[tuple[int, Callable[[], object]]] = [
            (1, lambda: ledger.look_up(asks)),
            (1, lambda: ledger.append(Batch([event], [], [], []))),
            (1, lambda: ledger.has_event("none")),
            (2, change),
            (2, change_nothing),
        ]
        for expected, call in calls:
            before = way.messages
            call()
            assert way.messages - before == expected


#: The longest that the settings take.
_PATIENT_S = 2.5


@pytest.mark.parametrize("lossy", ["reply", "at once", "message"], indirect=True)
@pytest.mark.parametrize("act", ["validate", "usage", "activate", "ping"])
def test_a_commit_in_doubt_is_answered_and_there_once(
    lossy: tuple[Lossy, str], tmp_path: Path, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, url = lossy
    # On a machine that is busy a break takes longer than is tried again, and no copy has this license.
    monkeypatch.setattr(recorder, "_AT_ONCE_S", _PATIENT_S)
    with running_node(url, tmp_path, LEDGER_BUDGET=str(_PATIENT_S)) as node:
        sold = sell(node.database)
        node.call("activate", sold.key, fingerprint="there")
        fields = {"usage": {}, "validate": {}}.get(act, {"fingerprint": "there"})
        before = len(events_of(node.database, sold))
        way.armed = True
        answer = node.call(act, sold.key, **fields)
        assert way.broken == 1
        assert (answer.status, answer.code) == (200, "VALID"), answer.body
        logged = events_of(node.database, sold)[before:]
        assert [(event["event_id"], event["type"]) for event in logged] == [((answer.claims or {})["jti"], act)]
        assert license_row(node.database, sold)["uses"] == (1 if act == "usage" else 0)


@pytest.mark.parametrize("lossy", ["at once"], indirect=True)
def test_a_commit_that_is_still_under_way_when_it_is_asked_for_is_found(
    lossy: tuple[Lossy, str], tmp_path: Path
) -> None:
    """The server holds the lost message up until the node has sent it again: the first comes first."""
    way, url = lossy
    with running_node(url, tmp_path) as node, opened_ledger(url) as other:
        sold = sell(node.database)
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with (
            other.database.writing() as connection,
            other.database.reading() as looking,
            ThreadPoolExecutor(1) as pool,
        ):
            connection.execute(tables.log_head.update().values(seq=tables.log_head.c.seq))  # holds the log's head
            way.armed = True
            answering = pool.submit(node.call, "validate", sold.key)
            until(lambda: looking.execute(waiting).scalar() == 2, "both messages at the lock")
            connection.exec_driver_sql("COMMIT")
            answer = answering.result()
        assert (answer.status, answer.code) == (200, "VALID"), answer.body
        (event,) = events_of(node.database, sold)
        assert event["event_id"] == (answer.claims or {})["jti"]
        assert [row["seq"] for row in rows(node.database, tables.events)] == [1]
