"""A database that other programs use as well: what is theirs stays theirs, and what is in the way is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from api.ledger import migrate
from api.ledger.database import Database
from api.ledger.errors import LedgerUnsuitable
from failover.session import with_schema
from tests.support.cli import Cli
from tests.support.nodes import environment, events_of, running_node, sell, starting_node
from tests.support.processes import until

_FOREIGN_PRODUCTS = "CREATE TABLE products (sku int); INSERT INTO products VALUES (7)"
_FOREIGN_ALEMBIC = "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('0001')"
_BACK_UNDER_THE_OLD_NAME = """
CREATE TABLE alembic_version AS SELECT * FROM protecao_version; DROP TABLE protecao_version
"""


@pytest.fixture
def empty(empty_ledger_url: str) -> Iterator[Database]:
    database = Database(empty_ledger_url)
    database.make_file()
    yield database
    database.close()


def say(database: Database, statements: str) -> None:
    with database.writing() as connection:
        for statement in statements.split(";"):
            connection.execute(text(statement))


def read(database: Database, sql: str) -> object:
    with database.reading() as connection:
        return connection.execute(text(sql)).scalar()


def waits_for(env: Mapping[str, str]) -> str:
    """What a node with these settings says that it waits for, once it has asked the ledger."""
    with starting_node(env["DATABASE_URL"], Path(env["DATA_DIR"]), **env) as node:

        def said() -> str | None:
            waiting_for = node.http.get("/readyz").get_json()["waiting_for"]
            return waiting_for if waiting_for != "the ledger" else None

        return str(until(said, "what the node waits for"))


def test_another_programs_alembic_version_is_not_ours(empty: Database, tmp_path: Path) -> None:
    say(empty, _FOREIGN_ALEMBIC.replace("0001", "1975ea83b712"))
    assert migrate.revision(empty) is None
    assert migrate.upgrade(empty)
    assert migrate.revision(empty) == migrate.HEAD
    assert read(empty, "SELECT version_num FROM alembic_version") == "1975ea83b712"


def test_one_that_says_the_same_revision_is_not_ours_either(empty: Database) -> None:
    say(empty, _FOREIGN_ALEMBIC + "; CREATE TABLE ledger (account int)")
    assert migrate.revision(empty) is None


def test_a_ledger_of_an_earlier_release_is_taken_over_and_the_old_name_stays(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    sold = sell(database)
    say(database, _BACK_UNDER_THE_OLD_NAME)
    assert migrate.revision(database) == migrate.HEAD
    with running_node(ledger_url, tmp_path) as node:
        assert node.call("validate", sold.key).code == "VALID"
    assert read(database, "SELECT version_num FROM protecao_version") == migrate.HEAD
    assert read(database, "SELECT version_num FROM alembic_version") == migrate.HEAD
    assert not migrate.upgrade(database)
    database.close()


def test_a_role_that_may_make_no_tables_goes_on_with_a_ledger_of_an_earlier_release(postgres_url: str) -> None:
    database = Database(postgres_url)
    say(database, _BACK_UNDER_THE_OLD_NAME)
    role = postgres_url.rsplit("/", 1)[1]
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE ROLE "{role}" LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    connection.close()
    other = Database(postgres_url.replace("//postgres@", f"//{role}@"))
    assert not migrate.upgrade(other)
    assert migrate.revision(other) == migrate.HEAD
    other.close()
    say(database, f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    database.close()


def test_tables_in_the_way_are_named_with_the_way_out(empty: Database, tmp_path: Path) -> None:
    say(empty, "CREATE TABLE products (sku int); CREATE VIEW events AS SELECT sku FROM products")
    with pytest.raises(LedgerUnsuitable, match=r"another program calls events, products: name another"):
        migrate.upgrade(empty)
    way_out = "DB_PATH" if empty.is_sqlite else "LEDGER_SCHEMA"
    env = environment(empty.url, tmp_path)
    for arguments in (("db", "upgrade"), ("license", "list")):
        said = Cli(env).fails(*arguments)
        assert "products" in said
        assert way_out in said
        assert said.count("\n") == 1
    assert way_out in waits_for(env)
    assert migrate.revision(empty) is None


def test_a_function_in_the_way_is_named_as_well(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url)
    say(database, "CREATE FUNCTION record_batch() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(LedgerUnsuitable, match=r"record_batch\(\)"):
        migrate.upgrade(database)
    database.close()


@pytest.mark.parametrize("revision", ["0000abc", "1975ea83b712", "'"])
def test_a_revision_of_no_release_is_a_sentence(ledger_url: str, tmp_path: Path, revision: str) -> None:
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.execute(text("UPDATE protecao_version SET version_num = :it"), {"it": revision})
    for arguments in (("db", "current"), ("db", "upgrade"), ("db", "check"), ("license", "list")):
        said = Cli(environment(ledger_url, tmp_path)).fails(*arguments)
        assert "no revision of any release" in said
        assert said.count("\n") == 1
    assert "no revision of any release" in waits_for(environment(ledger_url, tmp_path / "node"))
    database.close()


def test_a_revision_before_the_first_is_a_sentence(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    say(database, "UPDATE protecao_version SET version_num = '0000'")
    said = Cli(environment(ledger_url, tmp_path)).fails("db", "upgrade")
    assert "0000" in said
    assert said.count("\n") == 1
    database.close()


def test_a_ledger_lives_in_a_schema_beside_anothers_tables(empty_postgres_url: str, tmp_path: Path) -> None:
    plain = Database(empty_postgres_url)
    say(plain, _FOREIGN_PRODUCTS + ";" + _FOREIGN_ALEMBIC)
    env = environment(empty_postgres_url, tmp_path, LEDGER_SCHEMA="licences")
    cli = Cli(env)
    assert cli.json("db", "current")["revision"] is None
    with running_node(empty_postgres_url, tmp_path, LEDGER_SCHEMA="licences") as node:
        sold = sell(node.database)
        for act, fields in (("activate", {"fingerprint": "pc"}), ("validate", {"fingerprint": "pc"}), ("usage", {})):
            answer = node.call(act, sold.key, **fields)
            assert (answer.code, answer.body["durability"]) == ("VALID", "ledger")
        assert len(events_of(node.database, sold)) == 3
        until(lambda: node.http.get("/readyz").get_json()["snapshot_age_s"] is not None, "a copy")
    assert cli.json("license", "list")[0]["id"] == sold.id
    assert "Seats and log agree." in cli.ok("db", "check")
    assert read(plain, "SELECT sku FROM products") == 7
    ours = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = to_regnamespace('{}')"
    assert read(plain, ours.format("public")) == 2
    assert read(plain, "SELECT max(epoch) FROM licences.lease") == 1
    assert read(plain, ours.format("licences")) == len(_tables_of(empty_postgres_url))
    plain.close()


def _tables_of(url: str) -> list[str]:
    from api.ledger.tables import metadata

    return [*metadata.tables, "protecao_version"]


def test_two_ledgers_of_one_database_are_two(empty_postgres_url: str, tmp_path: Path) -> None:
    with (
        running_node(empty_postgres_url, tmp_path / "a", LEDGER_SCHEMA="one") as one,
        running_node(empty_postgres_url, tmp_path / "b", LEDGER_SCHEMA="two") as two,
    ):
        sold = sell(one.database)
        assert one.call("validate", sold.key).code == "VALID"
        assert two.call("validate", sold.key).code == "NOT_FOUND"


def test_a_ledger_in_another_schema_is_not_founded_anew_in_public(empty_postgres_url: str, tmp_path: Path) -> None:
    database = Database(with_schema(empty_postgres_url, "app"))
    migrate.upgrade(database)
    database.close()
    said = Cli(environment(empty_postgres_url, tmp_path)).fails("license", "list")
    assert "set LEDGER_SCHEMA to app to use it, or to public to make another" in said
    assert Cli(environment(empty_postgres_url, tmp_path, LEDGER_SCHEMA="public")).ok("db", "upgrade")


def test_a_schema_that_the_role_may_not_make_is_a_sentence(empty_postgres_url: str, tmp_path: Path) -> None:
    role = empty_postgres_url.rsplit("/", 1)[1]
    admin = Database(empty_postgres_url)
    say(admin, f'CREATE ROLE "{role}" LOGIN')
    url = empty_postgres_url.replace("//postgres@", f"//{role}@")
    said = Cli(environment(url, tmp_path, LEDGER_SCHEMA="mine")).fails("db", "upgrade")
    assert "SQLSTATE 42501: permission denied for database" in said
    assert "GRANT CREATE" in said
    say(admin, f'DROP ROLE "{role}"')
    admin.close()
