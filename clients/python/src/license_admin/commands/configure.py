"""`configure`: keeps the servers and the token in the user's own file, so that no command has to name them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from license_admin import config, files
from license_admin.errors import Misused
from license_admin.session import Session, connected


@click.command("configure")
@connected
def configure(session: Session) -> None:
    """Keep the servers and the admin token in a file of yours, asking for what is not given.

    On Windows it is %APPDATA%\\protecao-license\\license-admin.toml, on Linux
    ~/.config/protecao-license/license-admin.toml; --config names another. It is readable by you alone.
    """
    path = session.given.config or config.default_file()
    servers = config.checked(session.given.servers or _asked_servers())
    config.write(path, servers, _token(session.given.token_file))
    session.out.done(f"Written to {path}, readable by you alone.", {"file": str(path), "servers": list(servers)})


def _asked_servers() -> tuple[str, ...]:
    if not sys.stdin.isatty():
        raise Misused("name the servers: --server URL, once for each, in order of priority")
    return config.servers_in(click.prompt("Servers, in order of priority, separated by commas", err=True))


def _token(file: Path | None) -> str:
    if file is not None:
        return files.read_text(str(file)).strip()
    if sys.stdin.isatty():
        return str(click.prompt("Admin token", hide_input=True, err=True)).strip()
    token = sys.stdin.readline().strip()
    if not token:
        raise Misused("the token is read from standard input, or from --token-file")
    return token
