"""Which keys may sign: the keys a node holds against the statuses the ledger keeps for their kids.

    add ──► next ──activate──► current ──(another is activated)──► previous
              │                   ▲                                 │   │
              │                   └────────────activate─────────────┘   │
              └───────────────retire──────► revoked ◄──────retire───────┘

Pure: the transitions take the ledger's statuses and give the new ones; the caller stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from api.signing.keys import PublicJwk, SigningKey


class KeyStatus(StrEnum):
    """What the ledger says of a kid. Clients are shown all but the revoked."""

    NEXT = "next"
    CURRENT = "current"
    PREVIOUS = "previous"
    REVOKED = "revoked"


class KeyNotPermitted(Exception):
    """This node does not hold the key that the ledger says signs now."""


class KeyChangeRefused(Exception):
    """A change of the permitted keys that the order next, current, previous, revoked does not allow."""


class PermittedKeys(msgspec.Struct, frozen=True):
    """The signing keys that a ledger permits: statuses and public keys by kid."""

    statuses: dict[str, str]
    jwks: dict[str, PublicJwk]


@dataclass(frozen=True)
class Keyring:
    """The keys a node holds and the statuses the ledger gives to kids (plain strings will do)."""

    keys: tuple[SigningKey, ...]
    permitted: Mapping[str, str]

    def signing_key(self) -> SigningKey:
        """The held key that is `current`. Raises `KeyNotPermitted`, whose message is fit for an operator."""
        for key in self.keys:
            if self.permitted.get(key.kid) == KeyStatus.CURRENT:
                return key
        raise KeyNotPermitted(self._why_none())

    def published(self) -> tuple[str, ...]:
        """The kids whose public keys clients are shown: current, next, previous; never revoked."""
        order = (KeyStatus.CURRENT, KeyStatus.NEXT, KeyStatus.PREVIOUS)
        return tuple(kid for status in order for kid, held in self.permitted.items() if held == status)

    def _why_none(self) -> str:
        current = [kid for kid, status in self.permitted.items() if status == KeyStatus.CURRENT]
        if not current:
            return "the ledger names no current signing key; `flask keys activate` names one"
        held = ", ".join(f"{key.kid} ({self.permitted.get(key.kid, 'unknown to the ledger')})" for key in self.keys)
        return (
            f"the current signing key is {current[0]}, and SIGNING_KEY holds {held or 'no key'}; "
            "give this node the current key, or activate one that it holds with `flask keys`"
        )


def add(permitted: Mapping[str, str], kid: str) -> dict[str, KeyStatus]:
    """Permit a new kid as `next`. Raises `KeyChangeRefused` for one that is known, revoked ones included."""
    statuses = _statuses(permitted)
    if kid in statuses:
        raise KeyChangeRefused(f"the key {kid} is already known, as {statuses[kid]}")
    return {**statuses, kid: KeyStatus.NEXT}


def activate(permitted: Mapping[str, str], kid: str) -> dict[str, KeyStatus]:
    """Make a `next` or `previous` kid `current`, and what was current `previous`. The current one stays as it is.

    Raises `KeyChangeRefused` for a kid that is unknown or revoked.
    """
    statuses = _statuses(permitted)
    if _known(statuses, kid) is KeyStatus.REVOKED:
        raise KeyChangeRefused(f"the key {kid} is revoked and cannot come back")
    demoted = {k: KeyStatus.PREVIOUS if s is KeyStatus.CURRENT else s for k, s in statuses.items()}
    return {**demoted, kid: KeyStatus.CURRENT}


def retire(permitted: Mapping[str, str], kid: str) -> dict[str, KeyStatus]:
    """Make a kid `revoked`. Raises `KeyChangeRefused` for one that is unknown, and for the current one."""
    statuses = _statuses(permitted)
    if _known(statuses, kid) is KeyStatus.CURRENT:
        raise KeyChangeRefused(f"the key {kid} signs now; activate another one first")
    return {**statuses, kid: KeyStatus.REVOKED}


def _statuses(permitted: Mapping[str, str]) -> dict[str, KeyStatus]:
    return {kid: KeyStatus(status) for kid, status in permitted.items()}


def _known(statuses: Mapping[str, KeyStatus], kid: str) -> KeyStatus:
    if kid not in statuses:
        raise KeyChangeRefused(f"the key {kid} is not known; add it first")
    return statuses[kid]
