"""`flask keys`: the signing keys that the ledger permits, and the order in which one follows another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.cli.context import AdminContext, open_context
from api.cli.output import as_json, show_list
from api.cli.verify import verify
from api.ledger import permitted_keys, tables
from api.signing import (
    KeyChangeRefused,
    KeyStatus,
    PublicJwk,
    SigningKeyError,
    keyring,
    load_public_jwk,
    parse_signing_keys,
    public_jwk,
)

Transition = Callable[[Mapping[str, str], str], dict[str, KeyStatus]]


@click.group("keys")
def keys() -> None:
    """Signing keys: next, current, previous, revoked. All nodes follow within a second."""


keys.add_command(verify)


@keys.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the permitted keys, and whether this node's SIGNING_KEY holds their private halves."""
    with open_context() as context:
        _found(context)
        with context.database.reading() as connection:
            permitted = permitted_keys.load(connection)
        held = {key.kid for key in context.settings.signing_keys}
    order = list(KeyStatus)
    found = [
        {"kid": kid, "status": status, "held": kid in held, "jwk": permitted.jwks[kid]}
        for kid, status in sorted(permitted.statuses.items(), key=lambda one: order.index(KeyStatus(one[1])))
    ]
    show_list(found, ("kid", "status", "held"), as_json)


@keys.command("add")
@click.argument("file", type=click.File(encoding="utf-8"))
def add(file: TextIO) -> None:
    """Permit the key in FILE (a public JWK, or PEM; - for standard input) as the next one."""
    try:
        jwk = public_key_in(file.read())
    except (SigningKeyError, UnicodeDecodeError) as error:
        raise click.ClickException(f"the key cannot be used: {error}") from error
    _change("added", keyring.add, jwk["kid"], jwk)
    click.echo(f"{jwk['kid']} is permitted as the next key.")


@keys.command("activate")
@click.argument("kid")
def activate(kid: str) -> None:
    """Make a key the one that signs; the one that signed until now becomes the previous one."""
    held = _change("activated", keyring.activate, kid)
    click.echo(f"{kid} signs from now on.")
    if not held:
        click.echo("This node's SIGNING_KEY does not hold it: nodes without it stop giving verdicts.", err=True)


@keys.command("retire")
@click.argument("kid")
def retire(kid: str) -> None:
    """Revoke a key for good: clients are no longer shown it."""
    _change("retired", keyring.retire, kid)
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


def _found(context: AdminContext) -> None:
    """A ledger that no node has started on yet gets this node's keys first, as the node would do it."""
    permitted_keys.found(context.database, context.settings.signing_keys, context.journal.now())


def _change(done: str, transition: Transition, kid: str, jwk: PublicJwk | None = None) -> bool:
    """Moves the keys in one transaction with its event; gives whether this node holds the key."""
    with open_context() as context:
        _found(context)
        with context.journal.change() as change:
            # The ledger's only row is the lock: two administrators must not both start from the old statuses.
            change.connection.execute(tables.ledger.select().with_for_update())
            before = permitted_keys.load(change.connection).statuses
            try:
                after = transition(before, kid)
            except KeyChangeRefused as error:
                raise click.ClickException(str(error)) from error
            moved = [one for one in after if before.get(one) != after[one]]
            for one in moved:
                permitted_keys.write(change.connection, one, after[one], context.journal.now(), jwk)
            if moved:
                change.commit(context.journal.event(f"key.{done}", kid=kid), {tables.signing_keys: moved})
        return any(key.kid == kid for key in context.settings.signing_keys)
