"""`DATABASE_URL` of a Postgres ledger: taken apart as libpq does it, and what is wrong with it in words.

What a message quotes are names and values of parameters that are known: the rest may be a piece of a password.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psycopg2
from psycopg2.extensions import parse_dsn

from failover.engines import libpq_url

#: What dashboards and guides write where the password is to be put, Supabase's `[YOUR-PASSWORD]` among them.
_NO_PASSWORD = re.compile(
    r"\[.*\]|<.*>|\{.*\}|.*(your|sua|su)[-_ ]?(db[-_ ]?)?(password|senha|contrasena).*", re.IGNORECASE
)
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ALIKE = {"no-verify": "require", "true": "require", "on": "require", "false": "disable", "off": "disable"}
_THREE = ("disable", "prefer", "require")
#: What libpq would find out only with the first connection, by parameter.
_VALUES = {
    "sslmode": _SSL_MODES,
    "channel_binding": _THREE,
    "gssencmode": _THREE,
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_NO_WRITES = ("read-only", "standby", "prefer-standby")
_NUMBERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")
#: What a name that libpq does not know was probably meant to be.
_NAMES = (
    *_VALUES,
    *_NUMBERS,
    *("sslrootcert", "sslcert", "sslkey", "sslcrl", "host", "hostaddr", "port", "user", "password", "dbname"),
    *("options", "application_name", "tcp_user_timeout", "passfile", "service", "client_encoding"),
)

_PRISMA = "is Prisma's and means nothing here: remove it"
_DRIVERS = "is another driver's and means nothing here: remove it"
_SCHEMA = "is no parameter of libpq: remove it, and name the schema in LEDGER_SCHEMA"
_FOREIGN = {
    **dict.fromkeys(("pgbouncer", "connection_limit", "pool_timeout"), _PRISMA),
    **dict.fromkeys(("statement_cache_size", "socket_timeout"), _PRISMA),
    **dict.fromkeys(("prepareThreshold", "prepared_statement_cache_size", "uselibpqcompat", "supa"), _DRIVERS),
    **dict.fromkeys(("workaround", "pool_size", "pool_mode", "charset", "serverVersion"), _DRIVERS),
    **dict.fromkeys(("schema", "currentSchema", "search_path", "ledger_schema"), _SCHEMA),
    "sslaccept": "is Prisma's: write sslmode=verify-full or sslmode=require instead",
    "ssl": "may only be true: write sslmode=require, or another sslmode, instead",
    "tls": "is no parameter of libpq: write sslmode=require, or another sslmode, instead",
}


def check(url: str) -> None:
    """Raises ValueError, whose message completes `DATABASE_URL: ...` and holds no secret, where libpq would not take
    `url`, or would take it for something else than was meant.
    """
    plain = libpq_url(url).removeprefix("postgresql://")
    # As libpq does it: what comes before the first @ is user and password, unless there is a / before it.
    found = re.match(r"[^@/]*@", plain)
    behind = plain[found.end() :] if found else plain
    place, _, parameters = behind.partition("?")
    faults = [*_of_characters(plain), *_of_place(place)] or [*_of_parameters(parameters)] or [*_of_values(url)]
    if faults:
        raise ValueError("; ".join(faults))


def _of_characters(plain: str) -> Iterator[str]:
    if "#" in plain or " " in plain:
        yield "holds a # or a space: write these in a password as %23 and %20"
    if re.search(r"%(?![0-9A-Fa-f]{2})", plain):
        yield "holds a % that begins no escape: write a % itself, as in a password, as %25"
    if "%00" in plain:
        yield "holds %00, which stands for nothing that Postgres takes"


def _of_place(place: str) -> Iterator[str]:
    """What is wrong with hosts, ports and the database's name. `place`: what stands between user and parameters."""
    hosts, _, name = place.partition("/")
    if "@" in hosts:
        yield "holds more than one @ before the host: write an @ in a user's name or password as %40"
    if "@" in name:
        yield "holds a / before the @: write a / in a password as %2F"
    if hosts.count("[") != hosts.count("]"):
        yield "has a [ without its ]: only an IPv6 address stands in brackets; in a password they are %5B and %5D"


def _of_parameters(parameters: str) -> Iterator[str]:
    for pair in filter(None, parameters.split("&")):
        name, equals, value = pair.partition("=")
        if not equals or "=" in value:
            yield "must have name=value behind its ?, joined by &: write = and & within a value as %3D and %26"
        elif not _is_known(name, value):
            yield _unknown(name)


def _is_known(name: str, value: str) -> bool:
    try:
        parse_dsn(f"postgresql://host/name?{name}={value}")
    except psycopg2.Error:
        return False
    return True


def _unknown(name: str) -> str:
    if name in _FOREIGN:
        return f"{name}= {_FOREIGN[name]}"
    if not re.fullmatch(r"[A-Za-z_]{1,40}", name):
        return "has a parameter behind its ? that libpq does not know"
    alike = difflib.get_close_matches(name.lower(), _NAMES, n=1)
    return f"{name}= is no parameter of libpq" + (f": is {alike[0]}= meant?" if alike else ": remove it")


def _of_values(url: str) -> Iterator[str]:
    """What is wrong with what libpq reads from it."""
    try:
        given = parse_dsn(libpq_url(url))
    except psycopg2.Error:  # its words repeat what it could not read
        yield "is not a URL as libpq reads it: postgresql://user:password@host:port/database?name=value"
        return
    if _NO_PASSWORD.fullmatch(given.get("password", "")):
        yield "has a placeholder where the password is to be put"
    hosts = given.get("host", given.get("hostaddr", "")).split(",")
    if not all(hosts):
        yield "names no host" if len(hosts) == 1 else "has an empty place among its hosts"
    yield from _of_ports(given.get("port", ""), len(hosts))
    for name in _VALUES.keys() & given.keys():
        yield from _of_value(name, given[name])
    for name in _NUMBERS:
        if name in given and not re.fullmatch(r"-?[0-9]{1,9}", given[name]):
            yield f"{name}= must be a whole number"
    if re.search(r"search_path", unquote(given.get("options", ""))):
        yield "sets search_path in its options: name the schema in LEDGER_SCHEMA instead, which poolers let through"
    root = given.get("sslrootcert", "system")
    if given.get("sslmode", "").startswith("verify") and root != "system" and not Path(root).is_file():
        yield "sslrootcert= names a file that is not there"


def _of_ports(text: str, hosts: int) -> Iterator[str]:
    ports = text.split(",")
    if any(port and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536) for port in ports):
        # What stands there may be a password that holds a slash or a colon.
        yield "has a port that is no number from 1 to 65535: write : and / in a password as %3A and %2F"
    elif len(ports) not in (1, hosts):
        yield f"names {len(ports)} ports for {hosts} hosts: give one for all, or one for each"


def _of_value(name: str, value: str) -> Iterator[str]:
    known = _VALUES[name]
    if value not in known:
        alike = difflib.get_close_matches(_ALIKE.get(value, value), known, n=1)
        meant = f"; is {alike[0]} meant?" if alike else ""
        yield f"{name}= must be one of {', '.join(known)}{meant}"
    elif value in _NO_WRITES:
        yield f"{name}={value} leads to a server that takes no writes: write read-write"
