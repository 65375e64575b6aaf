"""`tokens` and `keys`: who may call as an admin, and which keys sign."""

from __future__ import annotations

import json
from typing import Any

import click

from license_admin import files, jwk, lookup
from license_admin.api import part
from license_admin.errors import Misused
from license_admin.session import Session, confirm, connected, request_id_option, yes_option
from license_client.errors import ConfigurationError
from license_client.keys import pinned

SCOPES = ("stats:read", "licenses:read", "licenses:write", "nodes:write", "tokens:write", "keys:write")
#: A kid may begin with a dash.
_KID: Any = {"ignore_unknown_options": True}


@click.group("tokens")
def tokens() -> None:
    """Admin tokens of fewer scopes than ADMIN_TOKEN, for colleagues and programs."""


@tokens.command("list")
@connected
def list_tokens(session: Session) -> None:
    """List the tokens that have not been revoked, the oldest first."""
    session.out.items(session.api.get("/v1/tokens")["items"], ("id", "name", "scopes", "created_at"))


@tokens.command("create")
@click.option("--name", required=True, help="What or whom it is for.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="May be repeated.",
)
@request_id_option
@connected
def create(session: Session, name: str, scopes: tuple[str, ...], request_id: str | None) -> None:
    """Make a token and show it, this once."""
    session.out.item(session.api.post("/v1/tokens", {"name": name, "scopes": list(scopes)}, request_id))


@tokens.command("revoke")
@click.argument("which", metavar="TOKEN")
@connected
def revoke(session: Session, which: str) -> None:
    """Revoke a token (its id or name, never the secret). All nodes go by it within a second."""
    session.api.delete(f"/v1/tokens/{part(lookup.token_of(session.api, which)['id'])}")
    session.out.done("Revoked.")


@click.group("keys")
def keys() -> None:
    """Signing keys: next, current, previous, revoked. Only public halves pass; all nodes follow within a second."""


@keys.command("list")
@connected
def list_keys(session: Session) -> None:
    """List the permitted keys, and whether the node that answers holds their private halves."""
    session.out.items(session.api.get("/v1/keys")["items"], ("kid", "status", "held", "changed_at"))


@keys.command("add")
@click.argument("file")
@request_id_option
@connected
def add(session: Session, file: str, request_id: str | None) -> None:
    """Permit the public key in FILE (a JWK, or PEM; - for standard input) as the next one."""
    session.out.item(session.api.post("/v1/keys", {"jwk": public_jwk(files.read_text(file))}, request_id))


@keys.command("activate", context_settings=_KID)
@click.argument("which", metavar="KID")
@click.option("--force", is_flag=True, help="Also where the node that is asked does not hold the private half.")
@request_id_option
@connected
def activate(session: Session, which: str, force: bool, request_id: str | None) -> None:
    """Make a key (its kid, or how that begins) the one that signs; the one of until now becomes the previous one.

    Every node must have it in SIGNING_KEY before.
    """
    path = f"/v1/keys/{part(lookup.key_of(session.api, which)['kid'])}/actions/activate"
    session.out.item(session.api.post(path, {"force": force}, request_id))


@keys.command("retire", context_settings=_KID)
@click.argument("which", metavar="KID")
@yes_option
@request_id_option
@connected
def retire(session: Session, which: str, yes: bool, request_id: str | None) -> None:
    """Revoke a key (its kid, or how that begins) for good: nothing that it signed counts any more."""
    kid = lookup.key_of(session.api, which)["kid"]
    confirm(yes, f"Revoke the signing key {kid} for good?")
    session.out.item(session.api.post(f"/v1/keys/{part(kid)}/actions/retire", {}, request_id))


def public_jwk(text: str) -> dict[str, str]:
    """The one public key in a JWK, a key set or PEM, as a JWK. Raises `Misused`."""
    try:
        given = json.loads(text) if text.lstrip().startswith("{") else text
        if isinstance(given, dict) and "d" in given:
            raise Misused("this is a private key: it stays where it is, and its public half is sent")
        found = pinned([given])
    except (ConfigurationError, ValueError, RecursionError) as error:
        raise Misused(f"the key cannot be used: {error}") from error
    if len(found) != 1:
        raise Misused(f"{len(found)} keys are given; give one")
    [(_, key)] = found.items()
    return jwk.public_jwk(key)
