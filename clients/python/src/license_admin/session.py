"""What every command has: its connection to the servers, its way to print, and the options for both."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from license_admin import config
from license_admin.api import AdminApi
from license_admin.output import Output
from license_admin.transport import AdminTransport
from license_client.servers import Servers
from license_client.transport import RequestsTransport


@dataclass
class Start:
    """What the program is started with. `transport`: another way to the servers, for tests."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    transport: AdminTransport | None = None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    given: config.Given = field(default_factory=config.Given)
    as_json: bool = False
    verbose: bool = False


class Session:
    """One command's run."""

    def __init__(self, start: Start, given: config.Given, out: Output) -> None:
        self.start = start
        self.given = given
        self.out = out
        self._transport: AdminTransport | None = None

    @functools.cached_property
    def config(self) -> config.Config:
        """Read when it is first needed: some commands ask no server. Raises `Misused`."""
        return config.read(self.given, self.start.environ, _asker())

    @functools.cached_property
    def api(self) -> AdminApi:
        """Raises `Misused`."""
        found = self.config
        self._transport = self.start.transport or RequestsTransport(ca_bundle=found.ca_bundle)
        return AdminApi(Servers(found.servers, found.memory, self.start.now), found.token, self._transport)

    def close(self, verbose: bool) -> None:
        """Ends the connection; `verbose` says which servers did not answer."""
        if "api" not in self.__dict__ or self._transport is None:
            return
        if self.start.transport is None:
            self._transport.close()
        for attempt in self.api.attempts if verbose else ():
            self.out.note(f"{attempt.server} did not answer: {attempt.reason}")


def _asker() -> Callable[[str], str] | None:
    if not sys.stdin.isatty():
        return None
    return lambda what: str(click.prompt(what, hide_input=True, err=True))


_PATH: Any = click.Path(path_type=Path)
_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
    click.option(
        "--server", "servers", multiple=True, metavar="URL",
        help="A server, in order of priority; may be repeated. Else LICENSE_SERVERS, else the configuration.",
    ),
    click.option(
        "--token-file", type=_PATH, metavar="FILE",
        help="Read the admin token from this file. Else LICENSE_ADMIN_TOKEN, else the configuration.",
    ),
    click.option("--ask-token", is_flag=True, help="Ask for the admin token and do not show it."),
    click.option("--config", type=_PATH, metavar="FILE", help="The configuration (TOML), in place of the user's."),
    click.option("--ca-bundle", type=_PATH, metavar="FILE", help="A PEM file of authorities to trust instead."),
    click.option("--verbose", is_flag=True, help="Say on stderr which servers did not answer."),
)  # fmt: skip


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command, or the program itself, the options that all commands have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def split(values: dict[str, Any]) -> tuple[config.Given, bool, bool]:
    """Takes the values of those options out: the connection's, `--json` and `--verbose`."""
    names = ("servers", "token_file", "ask_token", "config", "ca_bundle")
    given = config.Given(**{name: values.pop(name) for name in names})
    return given, values.pop("as_json"), values.pop("verbose")


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument is its `Session`; it has the options that all commands have."""

    @connection_options
    @click.pass_context
    @functools.wraps(command)
    def run(context: click.Context, /, **values: Any) -> None:
        given, as_json, verbose = split(values)
        start = context.find_object(Start) or Start()
        session = Session(start, given.over(start.given), Output(as_json or start.as_json))
        try:
            command(session, **values)
        finally:
            session.close(verbose or start.verbose)

    return run


request_id_option = click.option(
    "--request-id", metavar="ID", help="Repeat the call that had this id: it is done once, and answered as it was."
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")


def confirm(yes: bool, question: str) -> None:
    """Asks on stderr unless `yes`. Raises `click.Abort`."""
    if not yes:
        click.confirm(question, abort=True, err=True)
