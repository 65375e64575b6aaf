"""Every check that was answered is in the log, however the server ends: killed at once, or told to end."""

from __future__ import annotations

import base64
import http.client
import json
import random
import signal
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

from api.ledger import tables
from api.ledger.database import Database
from tests.support.nodes import SHARED_SECRET, Sold, environment, license_row, rows, sell, signed
from tests.support.processes import ROOT, ServerProcess, until

_CLIENTS = 64
_ROUNDS = 20
#: 64 connections may be more than the server has places, and one worker may be ready before the other.
_ANSWERS = {"VALID", "OVERLOADED", "STARTING"}


class Clients:
    """64 connections on which checks and uses follow one another until the server is gone."""

    def __init__(self, port: int, sold: list[Sold]) -> None:
        self._port = port
        self.told: Counter[str] = Counter()
        self.answered: list[str] = []
        self._threads = [
            threading.Thread(target=self._loop, args=(sold[number % len(sold)], number), daemon=True)
            for number in range(_CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _loop(self, sold: Sold, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while True:
            try:
                connection.connect() if connection.sock is None else None
            except ConnectionRefusedError:
                self.told["refused"] += 1
                return
            except OSError as error:
                self.told[f"no connection: {type(error).__name__}"] += 1
                return
            try:
                self._call(connection, sold, "usage" if number % 4 == 0 else "validate")
            except (OSError, http.client.HTTPException) as error:
                self.told[f"cut: {type(error).__name__}"] += 1
                connection.close()

    def _call(self, connection: http.client.HTTPConnection, sold: Sold, act: str) -> None:
        path, body = f"/v1/{act}", json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex}).encode()
        connection.request("POST", path, body, signed("POST", path, body, secrets=(SHARED_SECRET,)))
        response = connection.getresponse()
        answer = json.loads(response.read())
        self.told[str(answer["code"])] += 1
        if response.status == 200:
            self.answered.append(id_of(answer["verdict"]))
        else:
            assert response.headers["Retry-After"]
            time.sleep(0.05)  # a shorter second: what matters is that it does not hammer


def id_of(verdict: str) -> str:
    claims = verdict.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"])


def node(url: str, folder: Path) -> ServerProcess:
    """The real server: two workers, as it is deployed."""
    env = environment(url, folder, WEB_CONCURRENCY="2")
    return ServerProcess.python("app.py", env=env, cwd=ROOT / "api").wait_until_answers("/readyz", 60)


def logged(database: Database) -> set[str]:
    return {row["event_id"] for row in rows(database, tables.events)}


def answered_until_killed(server: ServerProcess, sold: list[Sold], after: float) -> list[str]:
    """The ids of the verdicts that the clients got before all of the server's processes were killed."""
    with server:
        clients = Clients(server.port, sold)
        until(lambda: len(clients.answered) > _CLIENTS, "answers")
        time.sleep(after)
        server.kill_tree()
        clients.join()
    assert {told for told in clients.told if told.isupper()} <= _ANSWERS
    return clients.answered


@pytest.mark.slow
def test_after_a_sigkill_of_the_whole_server_every_answered_check_is_in_the_log(
    ledger_url: str, tmp_path: Path, seed: int
) -> None:
    chance, database = random.Random(seed), Database(ledger_url)
    sold, answered = [sell(database) for _ in range(8)], 0
    for round in range(_ROUNDS if not database.is_sqlite else _ROUNDS // 4):
        told = answered_until_killed(node(ledger_url, tmp_path), sold, chance.uniform(0, 0.3))
        missing = set(told) - logged(database)
        assert not missing, f"round {round}: {len(missing)} of {len(told)} answered checks are lost"
        answered += len(told)
    events = rows(database, tables.events)
    assert [row["seq"] for row in events] == list(range(1, len(events) + 1))
    assert answered > _ROUNDS * 10
    uses = sum(license_row(database, one)["uses"] for one in sold)
    assert uses == sum(row["type"] == "usage" for row in events)
    database.close()


def test_a_sigterm_cuts_off_no_request_and_every_answered_check_is_in_the_log(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    sold = [sell(database) for _ in range(8)]
    with node(ledger_url, tmp_path) as server:
        clients = Clients(server.port, sold)
        until(lambda: len(clients.answered) > 3 * _CLIENTS, "answers")
        server.signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.output()
        clients.join()
    assert clients.told.pop("refused") == _CLIENTS
    assert set(clients.told) <= _ANSWERS, clients.told
    # Nothing was cut off, so the log has no event either that nobody was told of.
    assert logged(database) == set(clients.answered)
    database.close()
