"""`flask keys verify`: whether the tokens of a saved answer are signed by us, and what they say."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from api.cli.context import open_ledger_only, plain_errors
from api.cli.output import as_json, show
from api.ledger import migrate, permitted_keys
from api.node.clock import timestamp
from api.signing import (
    ISSUER,
    LEASE_TYP,
    VERDICT_TYP,
    Keyring,
    LeaseClaims,
    SigningKeyError,
    TokenInvalid,
    VerdictClaims,
    Verifier,
)

_TIMES = frozenset({"iat", "nbf", "exp", "lic_exp", "grace_until", "as_of"})
_FETCH_TIMEOUT_S = 5.0


class Inspector(Verifier):
    """Reads tokens without the request that they answer: the signature and the claims, bound to nothing.

    That is enough for an administrator who asks what a token says, and never for a client.
    """

    def verdict(self, token: str) -> VerdictClaims:
        """The claims of a verdict that one of the pinned keys signed. Raises `TokenInvalid`."""
        return self.claims(token, VERDICT_TYP, VerdictClaims)

    def lease(self, token: str) -> LeaseClaims:
        """The claims of an offline token that one of the pinned keys signed. Raises `TokenInvalid`."""
        return self.claims(token, LEASE_TYP, LeaseClaims)


@click.command("verify")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--jwks", help="A file or an address with the public keys; the ledger's are taken otherwise.")
@as_json
def verify(file: TextIO, jwks: str | None, as_json: bool) -> None:
    """Verify the verdict, and the token if there is one, of an answer saved in FILE (- for standard input)."""
    answer = _answer(file)
    with plain_errors():
        inspector = _inspector(jwks)
    found = {"verdict": inspect(answer, "verdict", inspector)}
    if answer.get("token") is not None:
        found["token"] = inspect(answer, "token", inspector)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for name, claims in found.items():
            click.echo(f"{name}: signed by a permitted key")
            show({f"  {claim}": _readable(claim, value) for claim, value in claims.items()}, as_json=False)


def inspect(answer: dict[str, Any], name: str, inspector: Inspector, now: float | None = None) -> dict[str, Any]:
    """The claims of `answer[name]`. Raises `click.ClickException` saying why the token is bad.

    `now`: Unix seconds. A verdict is not held against the clock: its freshness is its nonce.
    """
    token = answer.get(name)
    if not isinstance(token, str):
        raise click.ClickException(f"the answer has no {name}")
    try:
        claims = inspector.verdict(token) if name == "verdict" else inspector.lease(token)
    except TokenInvalid as error:
        raise click.ClickException(f"the {name} is bad ({error.reason})") from error
    fault = _fault(answer, claims, time.time() if now is None else now)
    if fault:
        raise click.ClickException(f"the {name} is bad ({fault})")
    return msgspec.structs.asdict(claims)


def _fault(answer: dict[str, Any], claims: VerdictClaims | LeaseClaims, now: float) -> str | None:
    if claims.iss != ISSUER:
        return "iss"
    if isinstance(claims, LeaseClaims):
        return f"expired {timestamp(claims.exp)}" if now >= claims.exp else None
    for name in ("nonce", "code", "valid"):
        # What is around the claims is for display, and here it displays something else.
        if name in answer and answer[name] != getattr(claims, name):
            says, signed = (json.dumps(one, ensure_ascii=False) for one in (answer[name], getattr(claims, name)))
            return f"the answer says {name} {says}, and {signed} is signed"
    return None


def _answer(file: TextIO) -> dict[str, Any]:
    try:
        answer = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise click.ClickException("the file is not JSON") from error
    if not isinstance(answer, dict):
        raise click.ClickException("the file does not hold the answer of a call")
    return answer


def _inspector(source: str | None) -> Inspector:
    try:
        return Inspector(_ledgers_keys() if source is None else _keys_at(source))
    except SigningKeyError as error:
        raise click.ClickException(f"the public keys cannot be used: {error}") from error


def _keys_at(source: str) -> dict[str, Any]:
    """The key set in a file or at an address. Raises `OSError` and `SigningKeyError`."""
    if source.startswith(("http://", "https://")):
        text = _fetched(source)
    else:
        text = Path(source).read_bytes()
    try:
        keys = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SigningKeyError(f"{source} does not hold JSON") from error
    if not isinstance(keys, dict):
        raise SigningKeyError(f"{source} does not hold a key set")
    return keys


def _fetched(url: str) -> bytes:
    import requests  # slow to import, and no other command needs it

    try:
        answer = requests.get(url, timeout=_FETCH_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise click.ClickException(f"{url} does not answer ({type(error).__name__})") from error
    if answer.status_code != 200:
        raise click.ClickException(f"{url} answers {answer.status_code}")
    return answer.content


def _ledgers_keys() -> dict[str, Any]:
    """The keys that the ledger permits, revoked ones left out."""
    with open_ledger_only() as database:
        if migrate.revision(database) is None:
            raise click.ClickException("the ledger has no keys yet; a node founds them when it starts")
        with database.reading() as connection:
            permitted = permitted_keys.load(connection)
    return {"keys": [permitted.jwks[kid] for kid in Keyring((), permitted.statuses).published()]}


def _readable(claim: str, value: Any) -> Any:
    return f"{value} ({timestamp(value)})" if claim in _TIMES and value is not None else value
