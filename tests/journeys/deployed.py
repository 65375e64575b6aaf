"""Nodes that were deployed to hosts: each in a clean folder of its own, started as that host does it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.journeys.hosts import Host
from tests.support.cluster import Json, Member
from tests.support.nodes import Sold
from tests.support.processes import ROOT, ServerProcess, free_port, until

#: The programs of the virtual environment that runs the tests.
OUR_BIN = Path(sys.executable).parent
_READY_S = 90.0


def checkout(folder: Path) -> Path:
    """The files of this repository, and no others, in a new folder."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


class Deployed(Member):
    """One node on a host: its server, its supervisor where that is a task of its own, a client and an admin of it."""

    def __init__(
        self,
        start: Sequence[str],
        folder: Path,
        secrets: Json,
        rank: int,
        environ: Mapping[str, str],
        *,
        bin: Path = OUR_BIN,
        supervisor: str | None = None,
    ) -> None:
        """`folder`: the checkout, of which several nodes may be started: each has a disk of its own.

        `environ`: all that the host sets and that its operator has set there; `bin`: the programs of the virtual
        environment that the host has built.
        """
        port = free_port()
        own = {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PORT": str(port), "FLASK_SKIP_DOTENV": ""}
        self.folder, self.rank, self._secrets = folder, rank, secrets
        disk = {"DATA_DIR": str(folder / f"data-{rank}"), "PYTHONDONTWRITEBYTECODE": ""}
        self.env = {"WEB_CONCURRENCY": "1", **disk, **environ, **own}
        command = [word.format(port=port) for word in start]
        if command[0] == "uwsgi":  # as a host's own uWSGI is told of the virtual environment
            command += ["--virtualenv", str(bin.parent)]
        self.server = ServerProcess(_found(command, bin), self.env, port=port, cwd=folder)
        self.task = None if supervisor is None else self.started(supervisor)

    def started(self, command: str) -> ServerProcess:
        """A task of this host beside the web processes, in the same folder and environment."""
        words = _found(shlex.split(command), Path(self.env["PATH"].partition(os.pathsep)[0]))
        return ServerProcess(words, self.env, cwd=self.folder)

    def ready(self) -> Deployed:
        """This node, as soon as it gives verdicts and its supervisor beats."""
        self.server.wait_until_answers("/readyz", _READY_S)
        until(lambda: self.server.get("/readyz").json()["troubles"] == [], "no troubles", _READY_S)
        return self

    def close(self) -> None:
        self.server.kill_tree()
        if self.task is not None:
            self.task.kill_tree()


def on(host: Host, folder: Path, url: str, secrets: Json, rank: int, *, bin: Path = OUR_BIN) -> Deployed:
    """A node of `rank` on `host`, whose operator pasted `DATABASE_URL` and the secrets there, or into a `.env`."""
    # Its address would be somebody else's: a leader is not to call it.
    pasted = {"DATABASE_URL": url, **secrets, "NODE_RANK": str(rank), "KEEP_AWAKE": "false"}
    environ = {**host.platform(rank), **host.settings}
    if host.supervisor is None:
        environ |= pasted
    else:
        lines = [f"{name}={value}" for name, value in pasted.items()]
        (folder / ".env").write_text("\n".join(lines) + "\n")
    return Deployed(host.start, folder, secrets, rank, environ, bin=bin, supervisor=host.supervisor)


def sell(member: Member) -> Sold:
    """A license that an admin makes at `member`."""
    member.admin("products", {"code": "app", "name": "App"})
    rules = {"floating": True, "require_fingerprint": False}
    policy = member.admin("policies", {"product": "app", "name": "a policy", **rules})
    license = member.admin("licenses", {"policy": policy["id"]})
    return Sold(license["id"], license["key"])


def answers(member: Member, sold: Sold) -> str:
    """The code of its verdict on a license."""
    return str(member.validate(sold).json()["code"])


def _found(command: list[str], bin: Path) -> list[str]:
    """The command, its program found where the host has it: what it brings itself, as uWSGI, is the tests' own."""
    path = os.pathsep.join([str(bin), os.environ["PATH"], str(OUR_BIN)])
    return [shutil.which(command[0], path=path) or command[0], *command[1:]]
