"""Databases on a Postgres server, made from a template and dropped again: on our own server or on a given one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor
from sqlalchemy.engine import make_url

#: Any constant: it only has to be the same in all processes of a test run.
_TEMPLATE_LOCK = 5_210_001


def with_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def create_database(server_url: str, name: str, template: str = "template1", encoding: str | None = None) -> str:
    """Makes a database like `template` (to which nobody may be connected); gives its URL.

    `encoding`: another than the template's, which then is `template0`.
    """
    made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    if encoding is not None:
        made += sql.SQL(" ENCODING {}").format(sql.Literal(encoding))
    with _session(server_url) as session:
        session.execute(made)
    return with_database(server_url, name)


def drop_database(server_url: str, name: str) -> None:
    """Drops it with all its connections; nothing happens where there is none."""
    with _session(server_url) as session:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def ensure_template(server_url: str, name: str, fill: Callable[[str], object]) -> str:
    """Makes the database `name` and calls `fill` with its URL, once, however many processes ask. Gives `name`.

    A template that could not be filled is dropped, so that every process sees the same error and none half a schema.
    """
    with _session(server_url) as session:
        session.execute("SELECT pg_advisory_lock(%s)", (_TEMPLATE_LOCK,))
        session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if session.fetchone() is not None:
            return name
        url = create_database(server_url, name)
        try:
            fill(url)
        except BaseException:
            drop_database(server_url, name)
            raise
        return name


@contextlib.contextmanager
def _session(server_url: str) -> Iterator[cursor]:
    with contextlib.closing(psycopg2.connect(_plain(server_url), connect_timeout=30)) as connection:
        connection.autocommit = True
        with connection.cursor() as session:
            yield session


def _plain(url: str) -> str:
    """The URL as libpq reads it: without SQLAlchemy's driver."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
