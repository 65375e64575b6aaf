"""PgBouncer in transaction mode in front of a Postgres: started, stopped and killed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Protocol

from tests.support.postgres import free_port
from tests.support.processes import until
from tests.support.programs import account_for, find_programs

_CONFIG = """
[databases]
* = host=127.0.0.1 port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 200
default_pool_size = 20
; how soon a server that was away is tried again: 15 s by default, which would only make each outage longer
server_login_retry = 1
"""


class Listening(Protocol):
    """Whatever is reached at a loopback port: a server, or a link to one."""

    port: int


class PgBouncer:
    """One pooler for `server`, as an unprivileged user: it refuses to run as root."""

    def __init__(self, server: Listening, folder: Path, user: str = "postgres") -> None:
        """`user`: the role that it connects as, whatever its clients say."""
        folder.mkdir()
        self.port = free_port()
        account = account_for(find_programs(), folder)
        if account.owner is not None:
            os.chown(folder, *account.owner)
        self._log = folder / "log"
        config = folder / "pgbouncer.ini"
        config.write_text(_CONFIG.format(server=server.port, port=self.port, user=user))
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        self._command = [*account.prefix, program or "pgbouncer", "--quiet", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is not None

    def start(self) -> PgBouncer:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        until(self._accepts, "PgBouncer")
        return self

    def kill(self) -> None:
        """SIGKILL; all its connections are reset."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
