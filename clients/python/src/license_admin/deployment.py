"""Secrets for a new cluster, made here and sent nowhere, as blocks to paste: one for each host, one for programs."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from license_admin import jwk
from license_admin.errors import Misused
from license_client.errors import ConfigurationError
from license_client.servers import checked_urls

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", re.ASCII)
_SECRET_BYTES = 32
_WHERE = {
    "railway": "Variables, Raw Editor",
    "render": "Environment, Add from .env",
    "fly": "fly secrets import < FILE",
    "pythonanywhere": "a file .env beside wsgi.py",
}

Private = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a node: its name, which names the node too, and its address where that is known."""

    name: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Secrets:
    """What all nodes share. The spare is the second key pair: clients pin its public half."""

    api_key: str = field(repr=False)
    shared_secret: str = field(repr=False)
    admin_token: str = field(repr=False)
    signing_key: Private = field(repr=False)
    spare_signing_key: Private = field(repr=False)

    def settings(self) -> dict[str, str]:
        """The four settings that are the same on every node."""
        return {
            "API_KEY": self.api_key,
            "SHARED_SECRET": self.shared_secret,
            "ADMIN_TOKEN": self.admin_token,
            "SIGNING_KEY": jwk.one_line_pem(self.signing_key),
        }

    def public_keys(self) -> list[str]:
        """Both public halves as JSON, the current one first."""
        both = (self.signing_key, self.spare_signing_key)
        return [json.dumps(jwk.public_jwk(key.public_key()), separators=(",", ":")) for key in both]


def generate() -> Secrets:
    """Three secrets of 256 random bits in URL-safe characters, and two P-256 key pairs."""
    api_key, shared_secret, admin_token = (secrets.token_urlsafe(_SECRET_BYTES) for _ in range(3))
    return Secrets(api_key, shared_secret, admin_token, jwk.generate(), jwk.generate())


def host_in(text: str) -> Host:
    """`railway`, or `railway=https://my-app.up.railway.app`. Raises `Misused`."""
    name, _, url = text.partition("=")
    if _NAME.fullmatch(name) is None:
        raise Misused(f"--host: {name!r} is no name; use letters, digits, . _ - and, after =, the address")
    try:
        return Host(name, checked_urls([url])[0] if url else None)
    except ConfigurationError as error:
        raise Misused(f"--host {name}: {error}") from error


def members(made: Secrets, hosts: Sequence[Host]) -> dict[str, Any]:
    """The same for programs: the settings of each node, and what programs and this PC need."""
    named = _with_ids(hosts)
    return {
        "nodes": [_settings(named, rank) | made.settings() for rank in range(1, len(named) + 1)],
        "public_keys": [json.loads(key) for key in made.public_keys()],
        "spare_signing_key": jwk.one_line_pem(made.spare_signing_key),
    }


def render(made: Secrets, hosts: Sequence[Host], product: str) -> str:
    """The blocks, ASCII, each under a heading that begins with `#`."""
    named = _with_ids(hosts)
    blocks = [_of_host(made, named, rank) for rank in range(1, len(named) + 1)]
    number = len(blocks) + 1
    blocks += [
        [f"# {number}. Programs: pin both public keys (they are no secret), the current one and the spare.",
         *made.public_keys()],
        [f"# {number + 1}. AutoHotkey v2: the head of your script, beside License.ahk.",
         *_autohotkey(made, hosts, product)],
        [f"# {number + 2}. This PC: license-admin asks for both with `license-admin configure`.",
         f"LICENSE_SERVERS={','.join(host.url or _unknown(host) for host in hosts)}",
         f"LICENSE_ADMIN_TOKEN={made.admin_token}"],
        [f"# {number + 3}. KEEP OFFLINE, on no node: the spare's private key. Should the first be lost or leak,",
         "#    this becomes SIGNING_KEY, and programs already shipped go on working.",
         f"SPARE_SIGNING_KEY={jwk.one_line_pem(made.spare_signing_key)}"],
    ]  # fmt: skip
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def _with_ids(hosts: Sequence[Host]) -> list[tuple[str, Host]]:
    """Each host with its node's id: its name and a number, from 1 for each name."""
    counted: dict[str, int] = {}
    named = []
    for host in hosts:
        counted[host.name] = counted.get(host.name, 0) + 1
        named.append((f"{host.name}-{counted[host.name]}", host))
    return named


def _settings(named: Sequence[tuple[str, Host]], rank: int) -> dict[str, str]:
    """What is this node's own."""
    id, host = named[rank - 1]
    peers = [other.url for at, (_, other) in enumerate(named, start=1) if at != rank and other.url is not None]
    own = {"NODE_ID": id, "NODE_RANK": str(rank)}
    own |= {} if host.url is None else {"NODE_URL": host.url}
    return own | ({"PEER_URLS": ",".join(peers)} if peers else {})


def _of_host(made: Secrets, named: Sequence[tuple[str, Host]], rank: int) -> list[str]:
    id, host = named[rank - 1]
    where = f" ({_WHERE[host.name]})" if host.name in _WHERE else ""
    lines = [f"# {rank}. The node {id}{where}. Add DATABASE_URL, the same Postgres for all nodes."]
    lines += [f"{name}={value}" for name, value in _settings(named, rank).items()]
    if any(other.url is None for at, (_, other) in enumerate(named, start=1) if at != rank):
        lines.append("# PEER_URLS: the addresses of the other nodes, separated by commas, once their hosts name them.")
    return lines + [f"{name}={value}" for name, value in made.settings().items()]


def _autohotkey(made: Secrets, hosts: Sequence[Host], product: str) -> list[str]:
    servers = ", ".join(f'"{host.url or _unknown(host)}"' for host in hosts)
    return [
        "#Requires AutoHotkey v2.0",
        "#Include License.ahk",
        f"g_LicenseAPI_Servers := [{servers}]",
        'g_LicenseAPI_PublicKeys := "',
        "(",
        *made.public_keys(),
        ')"',
        'key := InputBox("Please enter your license key.").Value',
        f'license := LicenseClient({{product: "{product}", key: key, publicKeys: g_LicenseAPI_PublicKeys,',
        f'    apiKey: "{made.api_key}", sharedSecret: "{made.shared_secret}"}})',
        "answer := license.Unlock()",
        "if !answer.valid {",
        '    MsgBox("This program may not run: " answer.code "`n" answer.detail)',
        "    ExitApp()",
        "}",
    ]


def _unknown(host: Host) -> str:
    """Stands for an address that the host has not given yet."""
    return f"https://ADDRESS-OF-{host.name.upper()}"
