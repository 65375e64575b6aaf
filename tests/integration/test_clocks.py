"""Clocks that are set: the database's, this machine's, and what a node signs meanwhile."""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.ledger import tables
from api.ledger.database import Database
from tests.chaos.cluster.machine import WallClock, clock_library
from tests.integration.test_isolated import caught_up, copied
from tests.support.admin import Admin
from tests.support.cli import Cli
from tests.support.leading import add_events
from tests.support.nodes import Answer, Node, environment, rows, running_node, starting_node
from tests.support.postgres import PostgresServer
from tests.support.processes import until

HOUR, YEARS = 3_600, 2 * 365 * 86_400
_MORE = {"HEARTBEAT_TIMEOUT": "6", "HEARTBEAT_INTERVAL": "0.5"}


class Host:
    """A database's host whose clock can be set."""

    def __init__(self, server: PostgresServer, clock: WallClock, url: str) -> None:
        self.server, self.clock, self.url = server, clock, url


@pytest.fixture(scope="module")
def host_and_server() -> Iterator[tuple[PostgresServer, WallClock]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server may have an account of its own
        library = clock_library(folder)
        if library is None:
            pytest.skip("NO C COMPILER: the database's clock cannot be set")
        library.chmod(0o755)
        clock = WallClock(folder, library)
        (folder / "clock").chmod(0o644)
        with PostgresServer(env=clock.env) as server:
            yield server, clock


@pytest.fixture
def host(host_and_server: tuple[PostgresServer, WallClock]) -> Iterator[Host]:
    server, clock = host_and_server
    name = f"clock_{uuid.uuid4().hex[:8]}"
    clock.shift(0)
    yield Host(server, clock, server.create_database(name))
    clock.shift(0)
    server.drop_database(name)


def troubles(node: Node) -> str:
    return "\n".join(node.http.get("/readyz").json["troubles"])  # type: ignore[index]


def is_now(answer: Answer) -> bool:
    """Whether it was signed with the true time."""
    claims = answer.claims or {}
    return abs(claims["iat"] - time.time()) < 60 and abs(claims["as_of"] - time.time()) < 60


def soon_over(admin: Admin, **rules: Any) -> dict[str, Any]:
    """A license that ends in half an hour, with a machine that beats every two minutes, both in the copy."""
    license = copied(admin, machine_heartbeat_s=120, offline_ttl_s=None, **rules)
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + HOUR / 2))
    admin.ok("PATCH", f"/licenses/{license['id']}", {"expires_at": ends})
    for act in ("activate", "ping"):
        assert admin.node.call(act, license["key"], fingerprint="pc").code == "VALID"
    caught_up(admin.node)
    return license


@pytest.mark.parametrize("jump", [HOUR, YEARS, -600, -YEARS])
def test_a_database_whose_clock_is_set_takes_nobody_along(host: Host, tmp_path: Path, jump: int) -> None:
    with running_node(host.url, tmp_path, **_MORE) as node:
        node.runtime.reader.max_age_s = 1.0
        license = soon_over(Admin(node))
        events = len(rows(node.database, tables.events))
        host.clock.shift(jump)
        until(lambda: "the ledger's clock was set" in troubles(node), "/readyz says so", 60)
        end = time.monotonic() + 4  # duties that go by the database's clock would have ended the seat, and the log
        while time.monotonic() < end:
            for act in ("validate", "ping", "usage"):
                answer = node.call(act, license["key"], **({} if act == "usage" else {"fingerprint": "pc"}))
                assert (answer.status, answer.code) == (200, "VALID"), answer.body
                assert is_now(answer)
        assert node.http.get("/readyz").status_code == 200
        assert node.call("validate", license["key"], fingerprint="never-here").code == "FINGERPRINT_SCOPE_MISMATCH"
        host.clock.shift(0)
        until(lambda: "the ledger's clock was set" not in troubles(node), "it is over", 60)
        assert is_now(node.call("validate", license["key"], fingerprint="pc"))
        assert rows(node.database, tables.machines)[0]["active"]
        assert len(rows(node.database, tables.events)) > events, "nothing was thrown away"
        watch = rows(node.database, tables.watch)[0]
        assert watch["looked_at"] < time.time() + 60
        assert watch["since"] is None or watch["since"] < time.time() + 60


def test_a_node_that_starts_while_the_databases_clock_is_wrong_goes_by_what_was_signed(
    host: Host, tmp_path: Path
) -> None:
    with running_node(host.url, tmp_path / "a", **_MORE) as node:
        license = soon_over(Admin(node))
        host.clock.shift(HOUR)
        assert is_now(node.call("validate", license["key"], fingerprint="pc"))
        with running_node(host.url, tmp_path / "b", NODE_ID="b", NODE_RANK="2", **_MORE) as other:
            answer = other.call("validate", license["key"], fingerprint="pc")
            assert answer.code == "VALID"
            assert is_now(answer)


def test_an_operator_says_that_the_database_is_right(host: Host, tmp_path: Path) -> None:
    with running_node(host.url, tmp_path, **_MORE) as node:
        license = copied(Admin(node))
        host.clock.shift(HOUR)
        until(lambda: "the ledger's clock was set" in troubles(node), "/readyz says so", 60)
        Cli(environment(host.url, tmp_path)).ok("node", "trust-clock")
        until(lambda: node.now() > time.time() + HOUR - 60, "the node goes by the ledger's", 60)
        until(lambda: "the ledger's clock was set" not in troubles(node), "its supervisor does too", 60)
        assert (node.call("validate", license["key"]).claims or {})["iat"] > time.time() + HOUR - 60


def test_a_new_node_that_cannot_know_which_clock_is_right_signs_nothing(host: Host, tmp_path: Path) -> None:
    host.clock.shift(5 * HOUR)
    with starting_node(host.url, tmp_path, **_MORE) as node:
        until(lambda: "no two clocks agree" in str(node.http.get("/readyz").json), "it says so", 60)
        assert node.http.get("/readyz").status_code == 503
        key, told = "nobody-has-this-key", "no two clocks agree"
        until(lambda: told in node.call("validate", key).body["detail"], "a caller is told", 60)
        refused = node.call("validate", key)
        assert (refused.status, refused.code) == (503, "STARTING")
        assert "It is" in Cli(environment(host.url, tmp_path)).ok("node", "trust-clock")
        node.ready()
        assert node.now() > time.time() + 5 * HOUR - 60


def test_a_new_node_signs_as_soon_as_two_clocks_agree(host: Host, tmp_path: Path) -> None:
    host.clock.shift(-5 * HOUR)
    with starting_node(host.url, tmp_path, **_MORE) as node:
        until(lambda: "no two clocks agree" in str(node.http.get("/readyz").json), "it says so", 60)
        host.clock.shift(0)
        node.ready()
        assert abs(node.now() - time.time()) < 60


def test_an_embedded_node_behind_what_it_signed_before_waits_until_an_operator_says_that_it_is_right(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Its machine was two years ahead when it signed, or is two years behind now: it cannot tell."""
    with contextlib.closing(Database(sqlite_url)) as database:
        add_events(database, {"recorded_at": time.time() + YEARS, "occurred_at": time.time() + YEARS})
    with starting_node(sqlite_url, tmp_path, **_MORE) as node:
        until(lambda: "this machine's clock said" in str(node.http.get("/readyz").json), "it says so", 60)
        assert node.http.get("/readyz").status_code == 503
        assert node.call("validate", "nobody-has-this-key").code == "STARTING"
        Cli(environment(sqlite_url, tmp_path)).ok("node", "trust-clock")
        node.ready()
        assert abs(node.now() - time.time()) < 60
        until(lambda: troubles(node) == "", "it is over", 60)
    with running_node(sqlite_url, tmp_path, **_MORE) as node:
        assert node.call("validate", "nobody-has-this-key").code == "NOT_FOUND"


def test_an_embedded_node_goes_on_as_soon_as_its_clock_is_not_behind_any_more(sqlite_url: str, tmp_path: Path) -> None:
    with contextlib.closing(Database(sqlite_url)) as database:
        add_events(database, {"recorded_at": time.time() + YEARS, "occurred_at": 0.0})
        with starting_node(sqlite_url, tmp_path, **_MORE) as node:
            until(lambda: node.http.get("/readyz").json["troubles"], "it says so", 60)  # type: ignore[index]
            with database.writing() as connection:  # as good as the machine's clock put right
                connection.execute(update(tables.events).values(recorded_at=time.time()))
            node.ready()
