"""`flask keys`: the signing keys that the ledger permits, and the order in which one follows another."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, TextIO

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.admin.signing_keys import SigningKeys
from api.cli.context import open_context
from api.cli.output import as_json, show_list
from api.cli.verify import verify
from api.ledger import permitted_keys
from api.signing import PublicJwk, SigningKeyError, load_public_jwk, parse_signing_keys, public_jwk


@click.group("keys")
def keys() -> None:
    """Signing keys: next, current, previous, revoked. All nodes follow within a second."""


keys.add_command(verify)


@keys.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the permitted keys, and whether this node's SIGNING_KEY holds their private halves."""
    with _opened() as (keys, held):
        found = keys.all(held)
    show_list(found, ("kid", "status", "held", "changed_at"), as_json)


@keys.command("add")
@click.argument("file", type=click.File(encoding="utf-8"))
def add(file: TextIO) -> None:
    """Permit the key in FILE (a public JWK, or PEM; - for standard input) as the next one."""
    try:
        jwk = public_key_in(file.read())
    except (SigningKeyError, UnicodeDecodeError) as error:
        raise click.ClickException(f"the key cannot be used: {error}") from error
    with _opened() as (keys, held):
        keys.add(jwk, held)
    click.echo(f"{jwk['kid']} is permitted as the next key.")


@keys.command("activate")
@click.argument("kid")
def activate(kid: str) -> None:
    """Make a key the one that signs; the one that signed until now becomes the previous one."""
    with _opened() as (keys, held):
        keys.activate(kid, held)
    click.echo(f"{kid} signs from now on.")
    if kid not in held:
        click.echo("This node's SIGNING_KEY does not hold it: nodes without it stop giving verdicts.", err=True)


@keys.command("retire")
@click.argument("kid")
def retire(kid: str) -> None:
    """Revoke a key for good: clients are no longer shown it."""
    with _opened() as (keys, held):
        keys.retire(kid, held)
    click.echo(f"{kid} is revoked.")


def public_key_in(text: str) -> PublicJwk:
    """The public half of the one key in `text`: a JWK, or PEM of either half. Raises `SigningKeyError`."""
    if text.lstrip().startswith("{"):
        return _from_jwk(text)
    if "PUBLIC KEY-----" in text:
        return _from_public_pem(text)
    found = parse_signing_keys(text)
    if len(found) != 1:
        raise SigningKeyError(f"{len(found)} keys are given; give one")
    return found[0].public_jwk


def _from_jwk(text: str) -> PublicJwk:
    try:
        given: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise SigningKeyError("is not JSON") from None
    jwk = public_jwk(load_public_jwk({"kid": "", **given}))
    if given.get("kid", jwk["kid"]) != jwk["kid"]:
        raise SigningKeyError(f"the kid is not the key's thumbprint (RFC 7638), which is {jwk['kid']}")
    return jwk


def _from_public_pem(text: str) -> PublicJwk:
    try:
        public = serialization.load_pem_public_key(text.strip().encode())
    except ValueError:
        raise SigningKeyError("is a damaged PEM block, or not EC P-256") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise SigningKeyError("is not an EC key on P-256")
    return public_jwk(public)


@contextlib.contextmanager
def _opened() -> Iterator[tuple[SigningKeys, set[str]]]:
    """The ledger's signing keys, and the kids that this node holds.

    A ledger that no node has started on yet gets this node's keys first, as the node would do it.
    """
    with open_context() as context:
        permitted_keys.found(context.database, context.settings.signing_keys, context.journal.now())
        yield context.resources.signing_keys, {key.kid for key in context.settings.signing_keys}
