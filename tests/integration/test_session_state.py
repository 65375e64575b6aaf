"""What a session begins with is not what we work with: roles, databases and poolers that give it something else."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.ledger import migrate, tables
from api.ledger.database import Database
from failover.session import Limits
from tests.chaos.cluster.pooler import PgBouncer
from tests.support.cli import Cli
from tests.support.nodes import Node, Sold, environment, events_of, rows, running_node, sell, starting_node
from tests.support.postgres import PostgresServer
from tests.support.processes import until

#: What hosts and people set on a role, each of which broke something, or would.
_DEFAULTS = {
    "serializable": "default_transaction_isolation = 'serializable'",
    "repeatable read": "default_transaction_isolation = 'repeatable read'",
    "statement_timeout": "statement_timeout = '50ms'",
    "lock_timeout": "lock_timeout = '1ms'",
    "idle_in_transaction": "idle_in_transaction_session_timeout = '1ms'",
    "client_encoding": "client_encoding = 'LATIN1'",
    "search_path": "search_path = 'nowhere'",
    "backslashes": "standard_conforming_strings = off",
    "DateStyle": "datestyle = 'German, DMY'",
    "timezone": "timezone = 'Asia/Tokyo'",
    "float digits": "extra_float_digits = -15",
    "no sync": "synchronous_commit = off",
}
_NAME = "経理 \\ \\' %s :x \U0001f600"


@pytest.fixture(scope="module")
def server(postgres_server: dict[str, str], postgres_template: str) -> Iterator[PostgresServer]:
    """One of its own: roles are a server's."""
    with PostgresServer() as server:
        server.create_database("template_of_ours")
        database = Database(server.url("template_of_ours"))
        migrate.upgrade(database)
        database.close()
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """A migrated database of the test's own, for a role of its own that owns it."""
    name = f"ledger_{uuid.uuid4().hex[:8]}"
    return server.create_database(name, "template_of_ours")


def set_on(server: PostgresServer, url: str, default: str) -> None:
    """Gives every session in the database of `url` another default."""
    with_admin(server, f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET {default}")


def with_admin(server: PostgresServer, statement: str, url: str | None = None) -> None:
    connection = psycopg2.connect(url or server.url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@pytest.fixture
def through_pooler(server: PostgresServer, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """What makes a URL of the server one by way of PgBouncer in transaction mode."""
    if not PgBouncer.is_installed():
        pytest.skip("PGBOUNCER IS MISSING")
    pooler = PgBouncer(server, tmp_path / "pooler").start()
    yield lambda url: url.replace(f":{server.port}/", f":{pooler.port}/")
    pooler.kill()


@pytest.fixture(params=["direct", "pooler"])
def reached(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """How a URL is reached: as it is, or through the pooler."""
    if request.param == "direct":
        return lambda url: url
    through: Callable[[str], str] = request.getfixturevalue("through_pooler")
    return through


@pytest.fixture
def pooled(url: str, through_pooler: Callable[[str], str]) -> str:
    return through_pooler(url)


@pytest.mark.parametrize("default", _DEFAULTS)
def test_a_node_works_whatever_its_sessions_begin_with(
    server: PostgresServer, url: str, reached: Callable[[str], str], tmp_path: Path, default: str
) -> None:
    set_on(server, url, _DEFAULTS[default])
    with running_node(reached(url), tmp_path / "node") as node:
        sold = sell(node.database)
        for act in ("activate", "ping", "validate"):
            answer = node.call(act, sold.key, fingerprint="pc", **({"name": _NAME} if act == "activate" else {}))
            assert (answer.code, answer.body["durability"]) == ("VALID", "ledger")
        assert node.call("usage", sold.key).body["license"]["uses"] == 1
        assert [row["name"] for row in rows(node.database, tables.machines, license_id=sold.id)] == [_NAME]
        assert events_of(node.database, sold)[0]["data"]["call"]["name"] == _NAME
        until(lambda: node.http.get("/readyz").get_json()["snapshot_age_s"] is not None, "a copy")
        assert node.http.get("/readyz").get_json()["troubles"] == []


def test_a_role_time_out_ends_no_statement_of_ours(
    server: PostgresServer, url: str, reached: Callable[[str], str]
) -> None:
    set_on(server, url, _DEFAULTS["statement_timeout"])
    database = Database(reached(url))
    with database.reading() as connection:
        assert connection.execute(text("SELECT pg_sleep(0.3), 1")).one()[1] == 1
    with database.writing() as connection:
        assert connection.execute(text("SELECT pg_sleep(0.3), 1")).one()[1] == 1
    with database.writing(Limits(100, 100, 100)) as connection, pytest.raises(DBAPIError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(9)"))
    database.close()


def test_a_serializable_role_costs_nobody_an_answer_with_24_at_once(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    set_on(server, url, _DEFAULTS["serializable"])
    with running_node(url, tmp_path) as node:
        sold = [sell(node.database) for _ in range(3)]
        codes: list[str] = []

        def ask(number: int) -> None:
            for turn in range(10):
                act = ("activate", "usage", "validate", "ping")[turn % 4]
                fields = {} if act == "usage" else {"fingerprint": f"pc-{number % 8}"}
                codes.append(node.call(act, sold[number % 3].key, **fields).code)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A ping or a validate may come before its machine's activation by another thread.
        assert set(codes) <= {"VALID", "NO_MACHINES", "FINGERPRINT_SCOPE_MISMATCH"}
        assert len(codes) == 240


def twins_of(url: str, prefix: str) -> str:
    """Statements that make tables as empty as a new ledger's, of the same names, and forms, as all of ours."""
    return ";".join(f"CREATE {prefix}{table} (LIKE public.{table} INCLUDING ALL)" for table in tables_in(url))


def is_served(node: Node, copied: Sold, new: Sold) -> None:
    """Whether each license is known, and what is answered of it is in the ledger that it was sold in."""
    for sold in (copied, new):
        for act in ("validate", "usage", "activate"):
            answer = node.call(act, sold.key, **({"fingerprint": "pc"} if act == "activate" else {}))
            assert (answer.code, answer.body.get("durability")) == ("VALID", "ledger"), answer.body
    assert node.call("validate", f"KEY-{uuid.uuid4().hex}").code == "NOT_FOUND"


def test_a_search_path_that_leads_to_empty_tables_of_the_same_names_denies_nobody(
    server: PostgresServer, url: str, reached: Callable[[str], str], tmp_path: Path
) -> None:
    """A role's, which every session of it begins with: while the node runs, and before it starts."""
    name = url.rsplit("/", 1)[1]
    with running_node(reached(url), tmp_path / "node") as node:
        copied = sell(node.database)
        assert node.call("validate", copied.key).code == "VALID"
        with_admin(server, "CREATE SCHEMA twin;" + twins_of(url, "TABLE twin."), url)
        with_admin(server, f"ALTER ROLE postgres IN DATABASE {name} SET search_path = twin, public")
        with_admin(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        until(lambda: node.call("validate", copied.key).body.get("durability") == "ledger", "connections made anew")
        until(lambda: node.runtime.state.breaker.isolated_since is None, "the node is back at its ledger")
        is_served(node, copied, sell(node.database))
    with running_node(reached(url), tmp_path / "node") as node:
        is_served(node, copied, sell(node.database))
    with running_node(reached(url), tmp_path / "another") as node:
        is_served(node, copied, sell(node.database))
        assert node.http.get("/readyz").get_json()["troubles"] == []
    for table in ("licenses", "events", "check_minutes", "lease"):
        assert read_of(url, f"SELECT count(*) FROM twin.{table}") == 0


def test_temporary_tables_of_another_client_of_the_pooler_deny_nobody(url: str, pooled: str, tmp_path: Path) -> None:
    """They are found before any schema's, unless a search path names them last."""
    with running_node(pooled, tmp_path / "node") as node:
        copied, new = sell(node.database), sell(node.database)
        temporary = twins_of(url, "TEMP TABLE IF NOT EXISTS ")
        spoiler = psycopg2.connect(pooled)
        spoiler.autocommit = True
        with spoiler.cursor() as cursor:
            for _ in range(20):  # whichever of the pooler's sessions it gets
                cursor.execute(temporary)
                is_served(node, copied, new)
        spoiler.close()
        assert node.http.get("/readyz").get_json()["troubles"] == []


def test_what_another_client_of_the_pooler_has_set_does_not_reach_us(pooled: str, tmp_path: Path) -> None:
    """A transaction pooler gives the next client the session as the one before left it."""
    with running_node(pooled, tmp_path / "node") as node:
        sold = sell(node.database)
        spoiler = psycopg2.connect(pooled)
        spoiler.autocommit = True
        with spoiler.cursor() as cursor:
            for _ in range(40):  # whichever of the pooler's sessions it gets
                cursor.execute("SET search_path = nowhere")
                with contextlib.suppress(psycopg2.errors.QueryCanceled):  # its session may have the limit already
                    cursor.execute("SET statement_timeout = 5")
                assert node.call("validate", sold.key).code == "VALID"
                assert node.call("usage", sold.key).code == "VALID"
        spoiler.close()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_a_fault_at_start(
    server: PostgresServer, tmp_path: Path, encoding: str
) -> None:
    name = f"of_{encoding.lower()}_{uuid.uuid4().hex[:6]}"
    url = server.create_database(name, "template0", encoding=encoding)
    for arguments in (("db", "upgrade"), ("license", "list")):
        said = Cli(environment(url, tmp_path)).fails(*arguments)
        assert f"encoding {encoding}" in said
        assert "createdb -E UTF8" in said
        assert said.count("\n") == 1
    with starting_node(url, tmp_path / "node") as node:
        until(lambda: "createdb -E UTF8" in node.http.get("/readyz").get_json()["waiting_for"], "/readyz says so")
        until(lambda: any("createdb" in one for one in node.http.get("/readyz").get_json()["troubles"]), "a trouble")
    assert not tables_in(server.url(name))


def tables_in(url: str) -> list[str]:
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = [str(row[0]) for row in cursor.fetchall()]
    connection.close()
    return found


def read_of(url: str, query: str) -> object:
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchone()
    connection.close()
    return found and found[0]


def test_row_security_that_filters_is_an_error_and_no_empty_answer(
    server: PostgresServer, url: str, tmp_path: Path
) -> None:
    database = Database(url)
    sold = sell(database)
    role = f"filtered_{uuid.uuid4().hex[:6]}"
    with database.writing() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
            "ALTER TABLE licenses ENABLE ROW LEVEL SECURITY",
        ):
            connection.execute(text(statement))
    database.close()
    with starting_node(url.replace("//postgres@", f"//{role}@"), tmp_path) as node:
        until(lambda: "row-level security" in "".join(node.http.get("/readyz").get_json()["troubles"]), "a trouble")
        answer = node.call("validate", sold.key)
        assert answer.status == 503
