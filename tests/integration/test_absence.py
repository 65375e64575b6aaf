"""Absence is not taken for truth: rows that are hidden, gone behind the log's back, or in another database."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from filelock import FileLock
from sqlalchemy import update

from api.ledger import migrate, tables
from api.ledger.database import Database
from api.signing import key_claim
from api.snapshot import Snapshot
from api.snapshot.adoption import Copied, Found, objection
from tests.integration.test_isolated import back, caught_up, copied, gone
from tests.support.admin import Admin
from tests.support.cli import Cli
from tests.support.nodes import Node, environment, rows, running_node, starting_node
from tests.support.postgres import PostgresServer
from tests.support.processes import until

_BUDGET = {"LEDGER_BUDGET": "0.5"}
_ACTS = ("validate", "activate", "ping", "usage", "deactivate", "check-in", "checkout")
Json = dict[str, Any]


def troubles(node: Node) -> str:
    return "\n".join(node.http.get("/readyz").json["troubles"])  # type: ignore[index]


def fields(act: str) -> dict[str, str]:
    return {} if act in ("usage", "check-in") else {"fingerprint": "pc"}


def seated(admin: Admin, **rules: Any) -> Json:
    """A license with one machine, both in the node's copy."""
    license = copied(admin, **rules)
    assert admin.node.call("activate", license["key"], fingerprint="pc").code == "VALID"
    caught_up(admin.node)
    return license


# -- gone behind the log's back ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def unchecked(database: Database) -> Iterator[Callable[[str], object]]:
    """Statements that no foreign key stands in the way of, each committed at once, as an operator's may be."""
    if database.file is not None:
        with contextlib.closing(sqlite3.connect(database.file, isolation_level=None)) as connection:
            yield connection.execute
    else:
        with contextlib.closing(Database(database.url)) as other, other.reading() as connection:
            connection.exec_driver_sql("SET session_replication_role = replica")
            yield connection.exec_driver_sql


@pytest.fixture
def node(ledger_url: str, tmp_path: Path) -> Iterator[Node]:
    with running_node(ledger_url, tmp_path / "a", **_BUDGET) as node:
        yield node


@pytest.mark.parametrize("act", _ACTS)
@pytest.mark.parametrize("table", ["licenses", "policies"])
def test_a_row_that_the_log_has_not_deleted_denies_nobody(node: Node, table: str, act: str) -> None:
    admin = Admin(node)
    license = seated(admin)
    before = len(rows(node.database, tables.events, license_id=license["id"]))
    with unchecked(node.database) as run:
        run(f"DELETE FROM {table}")
    answer = node.call(act, license["key"], **fields(act))
    assert (answer.status, answer.code) == (503, "LEDGER_CONTRADICTS"), answer.body
    assert answer.response.headers["Retry-After"]
    assert license["key"] not in answer.response.text
    assert len(rows(node.database, tables.events, license_id=license["id"])) == before, "problems are no events"
    until(lambda: "does not show what this node's copy of it holds" in troubles(node), "/readyz says so")
    assert node.call(act, "nobody-has-this-key", **fields(act)).code == "NOT_FOUND"


@pytest.mark.parametrize("act", ["validate", "ping", "checkout"])
def test_a_machine_that_is_hidden_is_not_denied(node: Node, act: str) -> None:
    license = seated(Admin(node), floating=True)
    other = node.call("activate", license["key"], fingerprint="laptop")
    assert other.code == "VALID"
    caught_up(node)
    with unchecked(node.database) as run:
        run("DELETE FROM machines WHERE fingerprint = 'pc'")
    assert node.call(act, license["key"], fingerprint="pc").code == "LEDGER_CONTRADICTS"
    assert node.call(act, license["key"], fingerprint="laptop").code == "VALID"
    assert node.call(act, license["key"], fingerprint="never-here").code != "VALID"


def test_a_seat_is_not_granted_because_machines_are_hidden(node: Node) -> None:
    """The license's own count of its seats stands, whatever the table of machines shows."""
    license = seated(Admin(node), floating=True, max_machines=1)
    with unchecked(node.database) as run:
        run("DELETE FROM machines")
    assert node.call("activate", license["key"], fingerprint="laptop").code == "MACHINE_LIMIT_EXCEEDED"
    assert node.call("activate", license["key"], fingerprint="pc").code == "LEDGER_CONTRADICTS"
    assert rows(node.database, tables.machines) == []


def test_the_others_of_a_batch_are_answered(node: Node) -> None:
    admin = Admin(node)
    hidden, other = seated(admin), seated(admin)
    with unchecked(node.database) as run:
        run(f"DELETE FROM licenses WHERE id = '{hidden['id']}'")
    assert node.call("usage", other["key"]).body["durability"] == "ledger"
    assert node.call("usage", hidden["key"]).code == "LEDGER_CONTRADICTS"
    assert node.call("validate", other["key"], fingerprint="pc").code == "VALID"


def test_what_the_log_tells_of_is_the_truth(node: Node) -> None:
    """Before the copy has heard of it, too: no follower runs between these calls and the changes."""
    admin = Admin(node)
    deleted, reissued = seated(admin), seated(admin)
    node.runtime.reader._looked_at = float("inf")  # what the copy held before
    admin.send("DELETE", f"/licenses/{deleted['id']}")
    fresh = admin.ok("POST", f"/licenses/{reissued['id']}/actions/reissue", {})["key"]
    for act in _ACTS:
        assert node.call(act, deleted["key"], **fields(act)).code == "NOT_FOUND"
        assert node.call(act, reissued["key"], **fields(act)).code == "NOT_FOUND"
    assert node.call("validate", fresh, fingerprint="pc").code == "VALID"
    assert "does not show" not in troubles(node)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_machine_that_went_with_its_license_is_404(node: Node, method: str) -> None:
    """Before the copy has heard of it, too: the log tells of the license's deletion alone."""
    admin = Admin(node)
    license = seated(admin)
    # On a machine that is busy its activation may go by the queue.
    [machine] = until(lambda: admin.ok("GET", f"/machines?license={license['id']}")["items"], "its machine")
    node.runtime.reader._looked_at = float("inf")  # what the copy held before
    assert admin.send("DELETE", f"/licenses/{license['id']}").status_code == 204
    body = {"name": "n"} if method == "PATCH" else None
    assert admin.problem(method, f"/machines/{machine['id']}", body)["code"] == "RESOURCE_NOT_FOUND"
    assert "does not show" not in troubles(node)


def test_an_admin_is_told_404_only_where_it_is_true(node: Node) -> None:
    admin = Admin(node)
    license = seated(admin)
    with unchecked(node.database) as run:
        run("DELETE FROM licenses")
        run("DELETE FROM policies")
        run("DELETE FROM machines")
    path = f"/licenses/{license['id']}"
    calls = [
        ("GET", path, None), ("PATCH", path, {"name": "n"}), ("DELETE", path, None),
        ("POST", f"{path}/actions/suspend", {}), ("GET", f"/policies/{license['policy']}", None),
        ("POST", "/licenses", {"policy": license["policy"]}),
        ("POST", "/machines", {"license": license["id"], "fingerprint": "x"}),
    ]  # fmt: skip
    for method, where, body in calls:
        problem = admin.problem(method, where, body)
        assert (problem["status"], problem["code"]) == (503, "LEDGER_CONTRADICTS"), (method, where)
    assert admin.problem("GET", f"/licenses/{uuid.uuid4()}")["code"] == "RESOURCE_NOT_FOUND"


def test_an_operator_says_that_the_ledger_is_right_as_it_is(node: Node) -> None:
    admin = Admin(node)
    license, other = seated(admin), seated(admin)
    with unchecked(node.database) as run:
        run(f"DELETE FROM licenses WHERE id = '{license['id']}'")
    assert node.call("usage", license["key"]).code == "LEDGER_CONTRADICTS"
    env = environment(node.runtime.settings.database_url, node.runtime.settings.data_dir)
    assert "is meant" in Cli(env).ok("db", "adopt")
    until(lambda: not node.runtime.reader.has_key(key_claim(license["key"])), "a copy made anew")
    until(lambda: node.call("usage", license["key"]).code == "NOT_FOUND", "the truth")
    assert node.call("usage", other["key"]).code == "VALID"
    until(lambda: "does not show" not in troubles(node), "/readyz says that it is over")


# -- hidden by the database -------------------------------------------------------------------------------------------


@pytest.fixture
def as_role(server: PostgresServer, url: str, tmp_path: Path) -> Iterator[tuple[Node, Callable[[str], None]]]:
    """A node as a role that owns nothing, and the owner's statements."""
    role = f"app_{uuid.uuid4().hex[:8]}"
    with contextlib.closing(Database(url)) as owner:
        migrate.upgrade(owner)

        def run(statement: str) -> None:
            with owner.reading() as connection:
                connection.exec_driver_sql(statement)

        run(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        try:
            with running_node(url.replace("postgres@", f"{role}:secret@"), tmp_path / "role", **_BUDGET) as node:
                yield node, lambda statement: run(statement.format(role=role))
        finally:
            run(f"DROP OWNED BY {role}")
            run(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("hide", "show"),
    [
        ("ALTER TABLE licenses ENABLE ROW LEVEL SECURITY", "ALTER TABLE licenses DISABLE ROW LEVEL SECURITY"),
        ("ALTER TABLE machines ENABLE ROW LEVEL SECURITY", "ALTER TABLE machines DISABLE ROW LEVEL SECURITY"),
        ("REVOKE SELECT ON machines FROM {role}", "GRANT SELECT ON machines TO {role}"),
        ("REVOKE SELECT ON policies FROM {role}", "GRANT SELECT ON policies TO {role}"),
    ],
)
def test_rows_that_the_role_may_not_see_are_an_outage_and_no_denial(
    as_role: tuple[Node, Callable[[str], None]], hide: str, show: str
) -> None:
    node, run = as_role
    license = seated(Admin(node))
    run(hide)
    for act in _ACTS:
        if act != "deactivate":
            answer = node.call(act, license["key"], **fields(act))
            assert (answer.status, answer.code) == (200, "VALID"), (act, answer.body)
    assert node.call("validate", "nobody-has-this-key").status == 503
    assert node.call("validate", license["key"], fingerprint="never-here").status == 503
    run(show)
    until(lambda: not node.runtime.state.breaker.may_hold_queued, "what was queued is in the ledger", 60)
    assert node.call("usage", license["key"]).body["license"]["uses"] == 2
    until(lambda: node.call("validate", "nobody-has-this-key-either").code == "NOT_FOUND", "it is back at its ledger")


def test_what_waits_for_a_license_that_is_hidden_is_not_taken_without_effect(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    with running_node(url, tmp_path, **_BUDGET) as node:
        license = seated(Admin(node))
        with unchecked(node.database) as run:
            run("CREATE TABLE aside AS SELECT * FROM licenses")
        gone(server, node, license["key"])
        assert node.call("usage", license["key"]).body["durability"] == "queue"
        with FileLock(node.runtime.settings.queue_path.with_name("sync_queue.db.replay.lock")):
            back(server, node)
            with unchecked(node.database) as run:
                run("DELETE FROM licenses")
        until(lambda: "does not show" in troubles(node), "/readyz says so", 60)
        assert node.runtime.state.breaker.may_hold_queued
        assert rows(node.database, tables.events, type="usage") == []
        with unchecked(node.database) as run:
            run("INSERT INTO licenses SELECT * FROM aside")
        until(lambda: rows(node.database, tables.events, type="usage"), "it has gone on", 60)
        assert rows(node.database, tables.licenses)[0]["uses"] == 1


# -- another database -------------------------------------------------------------------------------------------------


def licenses_in(folder: Path) -> int:
    with contextlib.closing(Snapshot(folder / "snapshot.db", reading=True)) as copy:
        return copy.count(tables.licenses)


def waits(node: Node) -> str:
    """What it says while it waits: on `/readyz`, among the troubles and to a customer."""
    until(
        lambda: node.runtime.ledger_start.objection or node.runtime.readiness.withheld_reason,
        "it has seen the ledger",
        60,
    )
    told = node.http.get("/readyz")
    assert told.status_code == 503
    assert told.json is not None
    assert told.json["waiting_for"] in told.json["troubles"]
    return str(told.json["waiting_for"])


@pytest.mark.parametrize("has_schema", [False, True])
@pytest.mark.parametrize("way_on", ["adopt", "license", "back"])
def test_a_node_with_a_copy_waits_where_its_settings_name_an_empty_ledger(
    has_schema: bool,
    way_on: str,
    postgres_url: str,
    empty_postgres_url: str,
    new_postgres_database: Any,
    tmp_path: Path,
) -> None:
    env = environment(empty_postgres_url, tmp_path, **_BUDGET)
    with running_node(postgres_url, tmp_path, **_BUDGET) as node:
        license = seated(Admin(node))
    if has_schema:
        Cli(environment(empty_postgres_url, tmp_path / "elsewhere")).ok("db", "upgrade")
    with starting_node(empty_postgres_url, tmp_path, **_BUDGET) as node:
        assert "has no licenses" in waits(node)
        for act in _ACTS:
            assert node.call(act, license["key"], **fields(act)).code == "STARTING"
        assert node.call("validate", "nobody-has-this-key").code == "STARTING"
        assert licenses_in(tmp_path) == 1
        with contextlib.closing(Database(empty_postgres_url)) as empty:
            assert (migrate.revision(empty) is not None) is has_schema, "nothing is founded meanwhile"
        if way_on == "adopt":
            done = Cli(env).json("db", "adopt")
            assert done["licenses"] == 0
            node.ready()
            until(lambda: licenses_in(tmp_path) == 0, "the copy is replaced")
        elif way_on == "license":
            cli = Cli(env)
            cli.ok("product", "create", "--code", "app", "--name", "App")
            policy = cli.json("policy", "create", "--product", "app", "--name", "P")["id"]
            key = cli.json("license", "create", "--policy", policy)["key"]
            node.ready()
            assert node.call("activate", key, fingerprint="pc").code == "VALID"
        if way_on != "back":
            until(lambda: node.call("validate", license["key"]).code == "NOT_FOUND", "the new ledger is the truth")
            assert "has no licenses" not in troubles(node)
    if way_on == "back":
        with running_node(postgres_url, tmp_path, **_BUDGET) as node:
            assert node.call("usage", license["key"]).code == "VALID"


def test_a_running_node_whose_database_is_made_anew_denies_nobody(
    postgres_url: str, new_postgres_database: Any, tmp_path: Path
) -> None:
    """Another node founds a ledger where the old one was; this one holds a copy of that."""
    with running_node(postgres_url, tmp_path, **_BUDGET) as node:
        license = seated(Admin(node))
        with contextlib.closing(Database(postgres_url)) as database, database.writing() as connection:
            names = ", ".join(table.name for table in tables.metadata.sorted_tables if table.name != "ledger")
            connection.exec_driver_sql(f"TRUNCATE {names}")
            connection.exec_driver_sql(f"UPDATE ledger SET ledger_id = '{uuid.uuid4()}'")
            connection.exec_driver_sql("INSERT INTO log_head (id, seq) VALUES (1, 0)")
        until(lambda: node.http.get("/readyz").status_code == 503, "it has seen the ledger", 60)
        assert "has no licenses" in waits(node)
        assert node.call("usage", license["key"]).status == 503
        assert licenses_in(tmp_path) == 1


def led(node: Node, key: str) -> str:
    """Which ledger an answer to this key says that it is of, whatever it says."""
    return str((node.call("validate", key).claims or {}).get("led"))


@pytest.mark.parametrize("asked_by", ["supervisor", "worker"])
def test_a_ledger_that_takes_anothers_place_under_a_running_node_is_named_in_what_is_signed(
    node: Node, asked_by: str
) -> None:
    """It has the same licenses: a backup of the same vendor's, say, that was founded anew."""
    license, new = seated(Admin(node)), str(uuid.uuid4())
    if asked_by == "worker":
        node.runtime._stop.set()  # its supervisor ends; the worker's own jobs go on
    assert led(node, license["key"]) == rows(node.database, tables.ledger)[0]["ledger_id"]
    with node.database.writing() as connection:
        connection.execute(update(tables.ledger).values(ledger_id=new))
    until(lambda: led(node, license["key"]) == new, "the new ledger's id", 60)
    assert led(node, "nobody-has-this-key") == new


def test_a_database_that_takes_anothers_name_under_a_running_node_is_named_in_what_is_signed(
    server: PostgresServer, tmp_path: Path
) -> None:
    urls = [server.create_database(f"swapped_{uuid.uuid4().hex[:8]}") for _ in range(2)]
    with running_node(urls[1], tmp_path / "b", **_BUDGET) as node:
        there = seated(Admin(node))
        new = led(node, there["key"])
    with running_node(urls[0], tmp_path / "a", **_BUDGET) as node:
        assert led(node, seated(Admin(node))["key"]) != new
        one, two = (url.rsplit("/", 1)[1] for url in urls)
        with contextlib.closing(psycopg2.connect(server.url())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for name, renamed in ((one, f"{one}_old"), (two, one)):
                    cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                    cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
                    until(lambda name=name: not sessions(cursor, name), "nobody is connected")
                    cursor.execute(f"ALTER DATABASE {name} RENAME TO {renamed}")
                    cursor.execute(f"ALTER DATABASE {renamed} ALLOW_CONNECTIONS true")
        until(lambda: led(node, there["key"]) == new, "the new ledger's id", 60)
        assert node.call("validate", there["key"], fingerprint="pc").code == "VALID"
    for name in (f"{one}_old", one):
        server.drop_database(name)


def sessions(cursor: Any, name: str) -> int:
    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,))
    return int(cursor.fetchone()[0])


def test_adopting_needs_a_copy_or_a_name(ledger_url: str, tmp_path: Path) -> None:
    cli = Cli(environment(ledger_url, tmp_path))
    assert "--instead-of" in cli.fails("db", "adopt")
    assert "in place of some-ledger" in cli.ok("db", "adopt", "--instead-of", "some-ledger")


# -- an embedded file that was moved -----------------------------------------------------------------------------------


def test_an_embedded_file_that_is_moved_while_the_node_runs_and_found_missing_by_the_next(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path / 'protecao.db'}", tmp_path / "protecao.db"
    moved = tmp_path / "elsewhere.db"
    with running_node(url, tmp_path, **_BUDGET) as node:
        license = seated(Admin(node))
        file.rename(moved)
        for act in ("validate", "usage", "ping"):
            answer = node.call(act, license["key"], **fields(act))
            assert (answer.code, answer.body["durability"]) == ("VALID", "queue")
        assert node.call("validate", "nobody-has-this-key").status == 503
        until(lambda: "is not where it was" in troubles(node), "/readyz says so")
        assert not file.exists()
    with starting_node(url, tmp_path, **_BUDGET) as node:
        assert "is not where it was" in waits(node)
        assert node.call("validate", license["key"]).code == "STARTING"
        assert "is not where it was" in Cli(environment(url, tmp_path)).fails("license", "list")
        assert not file.exists(), "no new one is founded"
        assert licenses_in(tmp_path) == 1
        moved.rename(file)
        node.ready()
        until(lambda: not node.runtime.state.breaker.may_hold_queued, "what was queued is in the ledger", 60)
        assert node.call("usage", license["key"]).body["license"]["uses"] == 2
        assert "is not where it was" not in troubles(node)


def test_an_embedded_file_that_is_meant_to_be_new_is_adopted(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path / 'protecao.db'}", tmp_path / "protecao.db"
    with running_node(url, tmp_path, **_BUDGET) as node:
        license = seated(Admin(node))
    file.rename(tmp_path / "elsewhere.db")
    with starting_node(url, tmp_path, **_BUDGET) as node:
        assert "is not where it was" in waits(node)
        assert Cli(environment(url, tmp_path)).json("db", "adopt")["licenses"] == 0
        node.ready()
        until(lambda: licenses_in(tmp_path) == 0, "the copy is replaced")
        until(lambda: node.call("validate", license["key"]).code == "NOT_FOUND", "the new ledger is the truth")


def test_a_backup_that_is_put_in_the_files_place_is_followed(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path / 'protecao.db'}", tmp_path / "protecao.db"
    with running_node(url, tmp_path, **_BUDGET) as node:
        admin = Admin(node)
        license = seated(admin)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
        later = seated(admin)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        (tmp_path / "backup.db").replace(file)
        until(lambda: not node.runtime.reader.has_key(key_claim(later["key"])), "a copy of the backup", 60)
        until(lambda: node.call("usage", license["key"]).body.get("durability") == "ledger", "a call on it", 60)


# -- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copied", "found", "objects"),
    [
        (None, Found(None), False),
        (Copied("a", 1, False), Found(None), False),
        (Copied("a", 1, True), Found(None), True),
        (Copied("a", 1, True), Found("b", 1), True),
        (Copied("a", 1, True), Found("b", 1, has_licenses=True), False),
        (Copied("a", 1, True), Found("b", 1, adopted=frozenset("a")), False),
        (Copied("a", 1, True), Found("b", 1, adopted=frozenset("c")), True),
        (Copied("a", 1, True), Found("a", 1), True),
        (Copied("a", 1, True), Found("a", 1, goes_on=True), False),
        (Copied("a", 1, True), Found("a", 2), False),
        (Copied("a", 2, True), Found("a", 1), True),
    ],
)
def test_a_copy_gives_way_to_what_has_licenses_or_is_meant(copied: Copied | None, found: Found, objects: bool) -> None:
    assert (objection(copied, found) is not None) is objects
