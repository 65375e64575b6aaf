"""The command line: a command for each call, and two that ask no server: `status` and `verify`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from license_client import config
from license_client.client import LicenseClient
from license_client.codes import Local
from license_client.errors import ConfigurationError, TokenInvalid
from license_client.result import Result, moment, timestamp
from license_client.texts import LANGUAGES
from license_client.version import __version__

VALID, DENIED, MISUSED, NO_SERVER, REFUSED = range(5)

_ABOUT = """\
Asks whether a program may run. Settings come from options, then from LICENSE_KEY, LICENSE_API_KEY and
LICENSE_SHARED_SECRET, then from a TOML file.

exit status:
  0  valid
  1  a server said no
  2  the command or its settings are wrong
  3  no server gave a verdict, and no token is saved
  4  no server gave a verdict, and the saved token does not do: ended, not for this license or machine, or the
     clock was set back. verify: the token is bad
"""

_TIMES = frozenset({"iat", "nbf", "exp", "lic_exp", "grace_until"})

Run = Callable[[LicenseClient, argparse.Namespace], Result]

_CALLS: dict[str, tuple[str, Run]] = {
    "validate": (
        "ask whether the program may run",
        lambda client, given: client.validate(version=given.version, entitlements=given.entitlement),
    ),
    "activate": (
        "take a seat for this machine",
        lambda client, given: client.activate(name=given.name, version=given.version, request_id=given.request_id),
    ),
    "deactivate": (
        "give this machine's seat back and delete the saved token",
        lambda client, given: client.deactivate(request_id=given.request_id),
    ),
    "ping": ("send this machine's heartbeat", lambda client, _: client.ping()),
    "check-in": ("reset the license's check-in clock", lambda client, _: client.check_in()),
    "usage": ("count uses", lambda client, given: client.usage(given.increment, request_id=given.request_id)),
    "checkout": ("fetch a token for some time without a server", lambda client, given: client.checkout(given.ttl)),
    "status": ("say what would be answered without a server; asks none", lambda client, _: client.status()),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit status."""
    given = _parser().parse_args(arguments)
    try:
        with config.client_of(given) as client:
            if given.command == "verify":
                return _verify(client, given)
            result = _CALLS[given.command][1](client, given)
            more = {"servers": client.server_order(), "floor": client.floor} if given.command == "status" else {}
    except ConfigurationError as error:
        print(f"license-client: {error}", file=sys.stderr)
        return MISUSED
    _show(result.to_dict() | more, given.json)
    return exit_status(result)


def exit_status(result: Result) -> int:
    if result.valid:
        return VALID
    if result.source == "server":
        return DENIED
    return NO_SERVER if result.code == Local.NO_SERVER else REFUSED


def _verify(client: LicenseClient, given: argparse.Namespace) -> int:
    """Whether an offline token is good for this license on this machine now, and what it says."""
    try:
        token = _token_in(given.file)
        claims = asdict(client.verify_lease(token))
    except TokenInvalid as refused:
        _show({"valid": False, "reason": refused.reason}, given.json)
        return REFUSED
    shown = {name: _rfc3339(value) if name in _TIMES else value for name, value in claims.items()}
    _show({"valid": True, **shown}, given.json)
    return VALID


def _rfc3339(at: int | None) -> str | int | None:
    known = moment(at)
    return timestamp(known) if known else at


def _token_in(file: str) -> str:
    """The token in a file, `-` being standard input: bare, as `token` of an answer, or of a saved token's file."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
    token = held.get("token") if isinstance(held, dict) else None
    if not isinstance(token, str):
        raise ConfigurationError(f"{file}: holds no token")
    return token


def _show(members: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(members, indent=2, ensure_ascii=False))
        return
    for name, value in members.items():
        if name == "attempts":
            for attempt in value:
                print(f"{'tried':<14} {attempt['server']}: {attempt['reason']}")
        elif value not in (None, (), []):
            print(f"{name:<14} {', '.join(value) if isinstance(value, list | tuple) else value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="license-client", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (help_text, _) in _CALLS.items():
        _add(commands, name, help_text)
    verify = _add(commands, "verify", "verify an offline token; asks no server")
    verify.add_argument("file", metavar="FILE", help="a token, an answer or a saved token's file; - for standard input")
    for name in ("validate", "activate"):
        commands.choices[name].add_argument("--version", help="the program's version, PEP 440")
    for name in ("activate", "deactivate", "usage"):
        commands.choices[name].add_argument("--request-id", help="repeat the call that had this id")
    commands.choices["validate"].add_argument("--entitlement", action="append", default=[], help="may be repeated")
    commands.choices["activate"].add_argument("--name", help="the machine's name; the host's by default")
    commands.choices["usage"].add_argument("--increment", type=int, default=1)
    commands.choices["checkout"].add_argument("--ttl", type=int, help="seconds; the policy's longest by default")
    return parser


def _add(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--config", type=Path, help=f"a TOML file; {config.DEFAULT_FILE} where it is there")
    parser.add_argument("--server", action="append", dest="servers", help="in order of priority; may be repeated")
    parser.add_argument("--product", help="the product's code")
    parser.add_argument("--key", help="the license key; better in LICENSE_KEY, which others do not see")
    parser.add_argument(
        "--public-key", action="append", dest="public_keys", help="a file with PEM or a JWKS; may be repeated"
    )
    machine = parser.add_mutually_exclusive_group()
    machine.add_argument("--fingerprint", help="this machine's name; made from the system's id by default")
    machine.add_argument("--no-fingerprint", action="store_true", help="bind nothing to this machine")
    for folder in ("--state-dir", "--floor-dir", "--log-dir"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("--language", choices=sorted(LANGUAGES), help="of what is said to people; en by default")
    parser.add_argument("--ca-bundle", type=Path, help="a PEM file of authorities to trust instead of the usual ones")
    return parser
