"""Where the command line takes its servers and its token from: options, the environment, a file of the user's own.

The token is never an option: every user of a machine sees the options of a running command.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from license_admin import files
from license_admin.errors import Misused
from license_client.errors import ConfigurationError
from license_client.files import floor_dir, state_dir
from license_client.servers import checked_urls

SERVERS, TOKEN = "LICENSE_SERVERS", "LICENSE_ADMIN_TOKEN"
_LISTS = frozenset({"servers"})
_KNOWN = frozenset({"servers", "token", "token_file", "ca_bundle"})
_ASK = "Admin token"


@dataclass(frozen=True, slots=True)
class Given:
    """The options of a command. None and () where one was not given."""

    servers: tuple[str, ...] = ()
    token_file: Path | None = None
    ask_token: bool = False
    config: Path | None = None
    ca_bundle: Path | None = None

    def over(self, other: Given) -> Given:
        """These, and where one was not given, that of `other`."""
        return Given(
            self.servers or other.servers,
            self.token_file or other.token_file,
            self.ask_token or other.ask_token,
            self.config or other.config,
            self.ca_bundle or other.ca_bundle,
        )


@dataclass(frozen=True, slots=True)
class Config:
    """Whom to ask, and with what. `memory`: the file that keeps which server has just failed."""

    servers: tuple[str, ...]
    token: str = field(repr=False)
    ca_bundle: Path | None
    memory: Path


def default_file() -> Path:
    """`license-admin.toml` in the user's folder for settings: on Windows %APPDATA%\\protecao-license."""
    return floor_dir() / "license-admin.toml"


def read(given: Given, environ: Mapping[str, str], ask: Callable[[str], str] | None) -> Config:
    """The settings that hold. `ask` asks a person for the token; None where nobody is there. Raises `Misused`."""
    kept = _from_file(given.config)
    named = given.servers or servers_in(environ.get(SERVERS, "")) or tuple(kept.get("servers", ()))
    if not named:
        raise Misused(f"no server is named: use --server, {SERVERS}, or `license-admin configure`")
    bundle = given.ca_bundle or kept.get("ca_bundle")
    memory = state_dir() / "license-admin-servers.json"
    return Config(checked(named), _token(given, environ, kept, ask), None if bundle is None else Path(bundle), memory)


def checked(servers: Sequence[str]) -> tuple[str, ...]:
    """The URLs, of which each is https or of this machine. Raises `Misused`."""
    try:
        return checked_urls(servers)
    except ConfigurationError as error:
        raise Misused(str(error)) from error


def servers_in(text: str) -> tuple[str, ...]:
    """The URLs of a text that separates them by commas, semicolons or spaces."""
    return tuple(part for part in re.split(r"[,;\s]+", text) if part)


def write(path: Path, servers: Sequence[str], token: str) -> None:
    """Makes the file anew, for its owner only. Raises `Misused`."""
    # JSON's strings are TOML's: nothing that is quoted so needs another escape.
    text = f"servers = {json.dumps(list(servers))}\ntoken = {json.dumps(token)}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror or error}") from error
    with files.new_private_file(path) as file:
        file.write(text)


def _token(given: Given, environ: Mapping[str, str], kept: Mapping[str, Any], ask: Callable[[str], str] | None) -> str:
    if given.ask_token:
        found = "" if ask is None else ask(_ASK)
    elif given.token_file is not None:
        found = files.read_text(str(given.token_file))
    elif environ.get(TOKEN):
        found = environ[TOKEN]
    elif kept.get("token"):
        found = str(kept["token"])
    elif kept.get("token_file"):
        found = files.read_text(str(kept["token_file"]))
    else:
        found = "" if ask is None else ask(_ASK)
    token = found.strip()
    if not token:
        raise Misused(f"there is no admin token: use {TOKEN}, --token-file, or `license-admin configure`")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise Misused("the admin token has characters that no token has: was something else pasted?")
    return token


def _from_file(given: Path | None) -> dict[str, Any]:
    path = given or default_file()
    if given is None and not path.exists():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise Misused(f"{path} cannot be read: {error}") from error
    for name, value in settings.items():
        if name not in _KNOWN:
            raise Misused(f"{path}: {name} is not a setting; there are {', '.join(sorted(_KNOWN))}")
        of_texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not (of_texts if name in _LISTS else isinstance(value, str)):
            raise Misused(f"{path}: {name} must be {'a list of texts' if name in _LISTS else 'a text'}")
        if name in ("token_file", "ca_bundle"):
            settings[name] = path.parent / value
    return settings
