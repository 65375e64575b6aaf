"""A primary and its streaming standby, for failovers of the database itself: promoted, made read-only, stopped.

Both listen on free loopback ports and keep their data in folders of their own. A URL names both hosts, as libpq takes
them: which of them is connected to is for `target_session_attrs` to say.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg2

from tests.support.postgres import PostgresServer
from tests.support.processes import until
from tests.support.programs import find_programs

_PROMOTED_WITHIN_S = 60


class Standby(PostgresServer):
    """A hot standby of `primary`, copied from it at its first start. `promote` makes it a server like any other."""

    def __init__(self, primary: PostgresServer, directory: Path | None = None) -> None:
        super().__init__(directory, primary.env)
        self._primary = primary

    def promote(self) -> None:
        """Makes it take writes, and waits until it does."""
        said(self, f"SELECT pg_promote(true, {_PROMOTED_WITHIN_S})")
        until(lambda: said(self, "SELECT pg_is_in_recovery()") is False, "a promoted standby")

    def has_caught_up(self) -> bool:
        """Whether it has replayed all that its primary has written."""
        written = said(self._primary, "SELECT pg_current_wal_lsn()")
        return bool(said(self, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"))

    def _initialize(self) -> None:
        self.data.mkdir(parents=True, mode=0o700)
        if self._account.owner is not None:
            os.chown(self.data, *self._account.owner)
        source = ["-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres"]
        command = [*self._command("pg_basebackup"), *source, "-D", self.data, "-R", "-X", "stream", "-c", "fast"]
        done = subprocess.run([*command, "--no-sync"], cwd="/", capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"pg_basebackup failed: {done.stderr.decode(errors='replace')}")


class ReplicatedPair:
    """`primary` streams to `standby`. `directory`: where both keep their data; None: temporary folders."""

    def __init__(self, directory: Path | None = None) -> None:
        self.primary = PostgresServer(None if directory is None else directory / "primary")
        self.standby = Standby(self.primary, None if directory is None else directory / "standby")

    @staticmethod
    def is_installed() -> bool:
        """Whether the server programs that were found come with `pg_basebackup`."""
        return os.access(find_programs() / "pg_basebackup", os.X_OK)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        """Starts the primary, then its standby, and waits until that has all that the primary has."""
        self.primary.start()
        self.standby.start()
        until(self.standby.has_caught_up, "a standby that has caught up")
        return self

    def url(self, database: str = "postgres") -> str:
        """Both hosts, of which the one that takes writes is connected to."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"

    def promote(self) -> None:
        """Promotes the standby once it has all that the primary has; the primary is left as it is."""
        until(self.standby.has_caught_up, "a standby that has caught up")
        self.standby.promote()

    def close(self) -> None:
        """Ends both and removes what they wrote, where the folders were their own."""
        self.standby.close()
        self.primary.close()


def make_read_only(server: PostgresServer, read_only: bool = True) -> None:
    """As hosts do at a quota: all transactions of the server become read-only, those of open connections too.

    `read_only` False takes it back. A connection notices within some milliseconds.
    """
    word = "on" if read_only else "off"
    said(server, f"SET default_transaction_read_only = off; ALTER SYSTEM SET default_transaction_read_only = {word}")
    said(server, "SELECT pg_reload_conf()")
    until(lambda: said(server, "SHOW transaction_read_only") == word, f"a server with read-only {word}")


def said(server: PostgresServer, sql: str) -> Any:
    """What the last of the statements in `sql` gives on a connection of its own; None where it gives no rows."""
    connection = psycopg2.connect(server.url(), connect_timeout=5)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in sql.split("; "):
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]
    finally:
        connection.close()
