"""`create_app()` under other WSGI servers: as many processes as they like, before or after they fork."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from api.ledger import tables
from api.ledger.database import Database
from tests.e2e.test_cut_bodies import CUT, admin, said
from tests.support.nodes import ADMIN_TOKEN, Sold, environment, license_row, rows, sell, signed
from tests.support.pages import blocks
from tests.support.processes import ROOT, ServerProcess, free_port, is_running, until

_PATIENCE_S = 90.0
#: After which a leader that says nothing is another's to follow.
_TIMEOUT_S = 6.0
_ADDRESS = "127.0.0.1:5000"
_SERVES = re.compile(r'"pid": (\d+), "message": "serving"')


def documented() -> list[list[str]]:
    """The commands of `docs/operations.md`, as words."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return [shlex.split(block.text) for block in blocks(page) if block.kind == "sh" and _ADDRESS in block.text]


_GUNICORN, _PRELOADED, _UWSGI, _WAITRESS = documented()
FORKING = {
    "gunicorn": _GUNICORN,
    "gunicorn, preloaded": [*_GUNICORN, "--preload"],
    "gunicorn, preloaded, threads": _PRELOADED,
    "uwsgi": _UWSGI,
    "uwsgi, lazy": [*_UWSGI, "--lazy-apps"],
    "uwsgi, threads": [*_UWSGI, "--threads", "4"],
    "uwsgi, without a master": [word for word in _UWSGI if word not in ("--master", "--processes", "2")],
}
SERVERS = {**FORKING, "waitress": _WAITRESS}
every_server = pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
every_forking_server = pytest.mark.parametrize("command", FORKING.values(), ids=FORKING)


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with contextlib.closing(Database(ledger_url)) as database:
        yield database


@contextlib.contextmanager
def serving(command: list[str], url: str, folder: Path) -> Iterator[ServerProcess]:
    port = free_port()
    program, *arguments = [word.replace(_ADDRESS, f"127.0.0.1:{port}") for word in command]
    inside = ["--virtualenv", sys.prefix] if program == "uwsgi" else []  # as an activated .venv tells it
    env = environment(url, folder, LOG_LEVEL="INFO", WEB_CONCURRENCY="2")
    with ServerProcess([str(Path(sys.executable).with_name(program)), *arguments, *inside], env, port=port) as server:
        yield server


def part(server: ServerProcess) -> tuple[str, int]:
    """The role and the epoch that it says its node has."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    node = requests.get(server.url + "/stats", headers=headers, timeout=10).json()["node"]
    return node["role"], node["epoch"]


def check(server: ServerProcess, sold: Sold) -> str:
    body = json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex}).encode()
    answer = requests.post(server.url + "/v1/validate", body, headers=signed("POST", "/v1/validate", body), timeout=10)
    return str(answer.json()["code"])


def is_ready(server: ServerProcess, processes: int = 1) -> ServerProcess:
    """As soon as all of its processes serve, and it leads: each connection may be another process's."""

    def serve() -> bool:
        assert is_running(server.process), server.output()
        return len(set(_SERVES.findall(server.output()))) >= processes

    until(serve, "all of its processes serve", _PATIENCE_S)
    until(lambda: all(server.answers("/readyz") for _ in range(10)), "it is ready", _PATIENCE_S)
    until(lambda: part(server)[0] == "primary", "it leads", _PATIENCE_S)
    return server


def processes_of(command: list[str]) -> int:
    return 2 if {"--workers", "--processes"} & set(command) else 1


def lease(database: Database) -> dict[str, Any]:
    [row] = rows(database, tables.lease)
    return row


@every_server
def test_a_node_serves_and_leads_under_another_server(command: list[str], postgres_url: str, tmp_path: Path) -> None:
    with serving(command, postgres_url, tmp_path) as server, contextlib.closing(Database(postgres_url)) as database:
        sold = sell(database)
        assert part(is_ready(server, processes_of(command))) == ("primary", 1)
        assert Counter(check(server, sold) for _ in range(40)) == {"VALID": 40}
        assert len(rows(database, tables.heartbeats)) == 1, "one of them supervises"
        assert server.get("/readyz").json()["troubles"] == []


@every_forking_server
def test_a_node_that_nobody_asks_leads_all_the_same(command: list[str], postgres_url: str, tmp_path: Path) -> None:
    with serving(command, postgres_url, tmp_path), contextlib.closing(Database(postgres_url)) as database:
        until(lambda: rows(database, tables.lease), "it leads", _PATIENCE_S)


@every_forking_server
def test_the_lease_is_resigned_when_another_server_ends(command: list[str], postgres_url: str, tmp_path: Path) -> None:
    with serving(command, postgres_url, tmp_path) as server, contextlib.closing(Database(postgres_url)) as database:
        is_ready(server, processes_of(command))
        assert lease(database)["expires_at"] > time.time()
        began = time.monotonic()
        server.signal()
        until(lambda: lease(database)["expires_at"] <= time.time(), f"it has resigned: {server.output()}", 4)
        print(f"resigned after {time.monotonic() - began:.2f} s")
        server.wait()
        assert "Traceback" not in server.output()


@pytest.mark.slow
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preloaded"])
def test_workers_that_are_replaced_after_some_requests_leave_no_spell_without_a_leader(
    preload: list[str], postgres_url: str, tmp_path: Path
) -> None:
    replaced = ["--workers", "3", "--max-requests", "20", "--max-requests-jitter", "60"]
    command = [*_GUNICORN, *replaced, *preload]
    with serving(command, postgres_url, tmp_path) as server, contextlib.closing(Database(postgres_url)) as database:
        sold = sell(database)
        is_ready(server, 3)
        codes, stop = Counter[str](), threading.Event()

        def ask() -> None:
            while not stop.is_set():
                with contextlib.suppress(requests.RequestException):  # a worker that ends may break off a connection
                    codes[check(server, sold)] += 1
                time.sleep(0.1)  # a worker serves for longer than it starts: they are not all replaced at once

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            longest = longest_spell_without_a_leader(database, server)
        finally:
            stop.set()
            asking.join()
        print(f"{longest:.2f} s", dict(codes), server.output().count("Booting worker"), "workers")
        assert longest < _TIMEOUT_S
        assert rows(database, tables.failovers) == []
        assert "Traceback" not in server.output()


def longest_spell_without_a_leader(database: Database, server: ServerProcess) -> float:
    """In seconds, while six workers are replaced. Where all are at once, one ends when the next has started."""
    longest, led = 0.0, time.monotonic()
    end = led + 3 * _PATIENCE_S
    while server.output().count("Booting worker") < 9:
        now = time.monotonic()
        assert now < end, "its workers are not replaced"
        if lease(database)["expires_at"] > time.time():
            led = now
        longest = max(longest, now - led)
        time.sleep(0.05)
    return longest


@pytest.mark.parametrize("command", [_GUNICORN, _UWSGI, _WAITRESS], ids=["gunicorn", "uwsgi", "waitress"])
def test_a_body_that_is_cut_short_is_never_acted_upon(command: list[str], sqlite_url: str, tmp_path: Path) -> None:
    with serving(command, sqlite_url, tmp_path) as server, contextlib.closing(Database(sqlite_url)) as database:
        sold = sell(database, {"duration_days": 30}, expires_at=2_000_000_000.0)
        is_ready(server)
        before = license_row(database, sold)
        for action in ("renew", "reissue"):
            for how, rest in CUT.items():
                answer = said(server, f"/v1/licenses/{sold.id}/actions/{action}", admin(), rest)
                assert not answer.startswith(b"HTTP/1.1 200"), (how, answer)
        assert license_row(database, sold) == before


def test_of_two_processes_one_supervises_and_when_it_is_killed_the_other_goes_on_with_its_lease(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    with serving(_WAITRESS, ledger_url, tmp_path) as first:
        # One leads already when the other comes: so it is known which of them supervises.
        assert part(is_ready(first)) == ("primary", 1)
        before = lease(database)
        with serving(_WAITRESS, ledger_url, tmp_path) as second:
            assert part(is_ready(second)) == ("primary", 1), "both say the same of their node"
            assert len(rows(database, tables.heartbeats)) == 1, "one of them supervises"
            first.kill_tree()
            assert second.get("/readyz").status_code == 200, "it serves on"
            renewed = lease(database)["expires_at"]
            until(lambda: lease(database)["expires_at"] > renewed + 2, "the other supervises now", _PATIENCE_S)
            after = lease(database)
            assert (after["holder"], after["epoch"]) == (before["holder"], 1)
            assert len(rows(database, tables.heartbeats)) == 1
            assert second.get("/readyz").json()["troubles"] == []


def test_uwsgi_without_threads_is_told_what_it_lacks(sqlite_url: str, tmp_path: Path) -> None:
    command = [word for word in _UWSGI if word != "--enable-threads"]
    with serving(command, sqlite_url, tmp_path) as server:
        assert server.wait(60) != 0
        assert "--enable-threads" in server.output()
