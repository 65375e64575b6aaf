"""Exports that nobody reads, at a node as it is deployed: they end, and customers do not notice."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
import requests

from api.ledger import tables
from api.ledger.database import Database
from tests.support.nodes import ADMIN_TOKEN, Sold, environment, sell, signed
from tests.support.processes import ROOT, ServerProcess, until
from tests.support.small_servers import workers

_ROWS = 40_000
_READERS = 150


def fill(database: Database) -> None:
    """A log that no buffer on the way holds."""
    now, row = time.time(), {"type": "validate", "node": "other", "instance": "i", "epoch": 0, "mode": "normal"}
    with database.writing() as connection:
        connection.execute(tables.log_head.update().values(seq=_ROWS))
        connection.execute(
            tables.events.insert(),
            [
                {**row, "seq": seq, "event_id": str(uuid.uuid4()), "data": "{}", "occurred_at": now, "recorded_at": now}
                for seq in range(1, _ROWS + 1)
            ],
        )


def unread(port: int) -> socket.socket:
    """A connection that asks for all of the log, and takes little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/csv\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    client.sendall(head.encode())
    return client


def status_of(client: socket.socket) -> str:
    client.settimeout(30)
    return client.recv(12).decode()


def check(server: ServerProcess, sold: Sold) -> str:
    body = json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex}).encode()
    headers = signed("POST", "/v1/validate", body)
    return str(requests.post(f"{server.url}/v1/validate", body, headers=headers, timeout=10).json()["code"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what is known of a connection is Linux's")
def test_150_readers_that_do_not_read_cost_no_worker_and_no_check_and_are_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    env = environment(url, tmp_path, WEB_CONCURRENCY="2")
    with ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as server, contextlib.ExitStack() as stack:
        until(lambda: server.answers("/readyz"), "a node that is ready", 60)
        database = stack.enter_context(contextlib.closing(Database(url)))
        fill(database)
        sold = sell(database)
        until(lambda: len(workers(server)) == 2, "both workers")
        before = workers(server)
        readers = [stack.enter_context(contextlib.closing(unread(server.port))) for _ in range(_READERS)]
        statuses = Counter(map(status_of, readers))
        assert 0 < statuses.pop("HTTP/1.1 200") <= 4
        assert set(statuses) == {"HTTP/1.1 429"}
        end = time.monotonic() + 12  # longer than a worker may hang
        while time.monotonic() < end:
            assert check(server, sold) == "VALID"
        assert workers(server) == before
        until(lambda: status_of(stack.enter_context(unread(server.port))) == "HTTP/1.1 200", "a free place", 90)
        assert workers(server) == before
