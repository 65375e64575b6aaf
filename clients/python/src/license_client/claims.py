"""The claims of the two kinds of token, and the strict reading of the JSON they come in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from license_client.errors import TokenInvalid

_MAX_INTEGER = 2**53 - 1
_NUMBERS = frozenset({"iat", "nbf", "exp", "lic_exp", "grace_until", "as_of", "uses", "max_uses", "epoch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictClaims:
    """One server's answer to one call (contract, section 3). Times are Unix seconds in the servers' time.

    `rid`: the call's `X-Request-Id`; `th`: the hash of the offline token beside it; `led`: the id of the ledger that it
    speaks for. A claim that was left out is None.
    """

    iss: str
    iat: int
    exp: int
    jti: str
    act: str
    nonce: str
    rid: str | None = None
    rh: str
    sub: str | None = None
    kh: str
    fp: str | None = None
    aud: str | None = None
    th: str | None = None
    led: str
    code: str
    valid: bool
    lic_exp: int | None = None
    ent: tuple[str, ...]
    uses: int | None = None
    max_uses: int | None = None
    node: str
    epoch: int
    as_of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseClaims:
    """The offline token: this key may run on this machine from `nbf` until `exp`."""

    iss: str
    iat: int
    nbf: int
    exp: int
    jti: str
    sub: str
    kh: str
    fp: str
    aud: str
    ent: tuple[str, ...]
    lic_exp: int | None = None
    grace_until: int | None = None
    led: str
    epoch: int


Claims = TypeVar("Claims", VerdictClaims, LeaseClaims)

#: A claim that may be left out is never null: RFC 7519 knows no null.
_IS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "int | None": lambda value: type(value) is int,
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
}


def parse_object(raw: bytes, otherwise: str) -> dict[str, Any]:
    """The JSON object in `raw`, no member twice at any depth. `otherwise`: the reason when it is none.

    Raises `TokenInvalid`.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_members, parse_int=_integer, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise TokenInvalid(otherwise) from None
    if not isinstance(value, dict):
        raise TokenInvalid(otherwise)
    return value


def typed(members: dict[str, Any], kind: type[Claims]) -> Claims:
    """The claims, each of its type; members that are not known are ignored. Raises `TokenInvalid`."""
    required = {field.name for field in fields(kind) if field.default is MISSING}
    types = {field.name: str(field.type) for field in fields(kind) if field.name in members}
    if not required <= types.keys() or any(members[name] is None for name in types):
        raise TokenInvalid("claims")
    for name in _NUMBERS & types.keys():
        value = members[name]
        if type(value) is not int or abs(value) > _MAX_INTEGER:
            raise TokenInvalid("number")
    if not all(_IS[type_](members[name]) for name, type_ in types.items()):
        raise TokenInvalid("claims")
    return kind(**{**{name: members[name] for name in types}, "ent": tuple(members["ent"])})


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise TokenInvalid("duplicate_member")
    return members


def _integer(digits: str) -> int | float:
    """An integer; one with more digits than any time has is infinite, so that it costs nothing and fits nowhere."""
    return int(digits) if len(digits) <= len(str(-_MAX_INTEGER)) else math.inf


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
