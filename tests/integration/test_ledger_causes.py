"""Why a database refuses: its own words stand in `/readyz`, in the log and on the command line, passwords nowhere."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from api.config.settings import Settings, SettingsError
from tests.support.cli import Cli
from tests.support.nodes import environment, running_node, sell, starting_node
from tests.support.postgres import PostgresServer, free_port
from tests.support.processes import until

_PASSWORD, _ESCAPED = "s3cret-p@ss", "s3cret-p%40ss"
_NAME = "ledger"


@pytest.fixture(scope="module")
def server(postgres_server: dict[str, str]) -> Iterator[PostgresServer]:
    """One that asks for passwords, with roles that may do less and less."""
    with PostgresServer() as server:
        server.create_database(_NAME)
        server.create_database("latin", "template0", encoding="LATIN1")
        said = (
            f"CREATE ROLE plain LOGIN PASSWORD '{_PASSWORD}'",
            f"CREATE ROLE full LOGIN PASSWORD '{_PASSWORD}' CONNECTION LIMIT 0",
            f"CREATE ROLE barred LOGIN PASSWORD '{_PASSWORD}'",
            f"REVOKE CONNECT ON DATABASE {_NAME} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {_NAME} TO plain, full",
        )
        connection = psycopg2.connect(server.url())
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in said:
                cursor.execute(statement)
        connection.close()
        rules = server.data / "pg_hba.conf"
        rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.restart()
        yield server


def of_role(role: str, password: str = _ESCAPED, database: str = _NAME, more: str = "") -> Callable[[int], str]:
    return lambda port: f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}{more}"


_CAUSES = {
    "no such database": (of_role("plain", database="nowhere"), 'database "nowhere" does not exist'),
    "no such role": (of_role("nobody"), 'password authentication failed for user "nobody"'),
    "wrong password": (of_role("plain", "s3cret-p%40sx"), 'password authentication failed for user "plain"'),
    "may not connect": (of_role("barred"), 'permission denied for database "ledger"'),
    "TLS missing": (of_role("plain", more="?sslmode=require"), "server does not support SSL, but SSL was required"),
    "no CREATE on schema public": (of_role("plain"), "SQLSTATE 42501: permission denied for schema public"),
    "slots full": (of_role("full"), 'too many connections for role "full"'),
    "a wrong encoding": (of_role("postgres", database="latin"), "encoding LATIN1, which cannot hold every text"),
    "nobody listens": (lambda _port: f"postgresql://u:{_ESCAPED}@127.0.0.1:{free_port()}/x", "Connection refused"),
    "no such host": (lambda port: f"postgresql://u:{_ESCAPED}@nowhere.invalid:{port}/x", "nowhere.invalid"),
}


@pytest.mark.parametrize("cause", _CAUSES)
def test_the_cause_is_named_and_no_password_is(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    make_url, words = _CAUSES[cause]
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    url = make_url(server.port)
    command = Cli(environment(url, tmp_path)).fails("license", "list")
    assert words in command
    # What other threads of this process log meanwhile begins with the day.
    said = [line for line in command.splitlines() if not re.match(r"\d{4}-\d\d-\d\d", line)]
    assert [line[:7] for line in said] == ["Error: "], "one sentence"
    with starting_node(url, tmp_path / "node", LOG_LEVEL="WARNING") as node:

        def report() -> str:
            return str(node.http.get("/readyz").get_json()["waiting_for"])

        until(lambda: words in report(), f"/readyz says {words}, not {report()}")
        assert node.http.get("/readyz").status_code == 503
        shown = [command, node.http.get("/readyz").text, repr(node.runtime.settings)]
    assert words in log.getvalue().replace('\\"', '"')
    for one in (*shown, log.getvalue()):
        assert "s3cret" not in one


@pytest.mark.parametrize(
    ("more", "word"),
    [("?pgbouncer=true", "pgbouncer"), ("?schema=public", "LEDGER_SCHEMA"), ("?sslmode=required", "require")],
)
def test_what_the_url_alone_shows_is_found_before_the_port_opens(
    server: PostgresServer, tmp_path: Path, more: str, word: str
) -> None:
    env = environment(of_role("plain", more=more)(server.port), tmp_path)
    with pytest.raises(SettingsError, match=word) as caught:
        Settings.from_env(env)
    assert "s3cret" not in str(caught.value)
    said = Cli(env).fails("license", "list", status=2)
    assert word in said
    assert "s3cret" not in said


def test_a_percent_sign_in_a_password_is_named(server: PostgresServer, tmp_path: Path) -> None:
    env = environment(of_role("plain", "p%w")(server.port), tmp_path)
    assert "%25" in Cli(env).fails("license", "list", status=2)


def test_a_role_that_is_shut_out_later_is_a_trouble_with_the_servers_words(postgres_url: str, tmp_path: Path) -> None:
    name = postgres_url.rsplit("/", 1)[1]
    with running_node(postgres_url, tmp_path) as node:
        sold = sell(node.database)
        until(lambda: node.http.get("/readyz").get_json()["snapshot_age_s"] is not None, "a copy")
        assert node.call("validate", sold.key).code == "VALID"

        def troubles() -> str:
            return "".join(node.http.get("/readyz").get_json()["troubles"])

        admin = psycopg2.connect(postgres_url.rsplit("/", 1)[0] + "/postgres")
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            until(lambda: "not currently accepting connections" in troubles(), "the server's own words")
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        admin.close()
        until(lambda: troubles() == "", "no trouble any more")
