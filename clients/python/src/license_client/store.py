"""The saved offline token and the floors of time. The format is described in clients/python/TOKEN_STORE.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from license_client import base64url, files

_FORMAT = 1
_MAX_TIME = 2**53 - 1
_NAMED_BY = 16
#: Seconds by which a signed time may lie above a fresh verdict's before the server that signed it counts as wrong.
_LEEWAY_S = 300


class Damaged(Exception):
    """What is saved cannot be read as a token."""


@dataclass(frozen=True, slots=True)
class Floors:
    """The highest times that were seen, Unix seconds: `signed` by a server, and on this machine's own clock."""

    signed: int | None = None
    local: int | None = None

    def joined(self, other: Floors) -> Floors:
        """Of each kind the higher one."""
        return Floors(_higher(self.signed, other.signed), _higher(self.local, other.local))


class TokenStore:
    """One license's token on this machine, and the highest times this product has seen, kept in two places."""

    def __init__(self, state_dir: Path, floor_dir: Path, *, product: str, key: str) -> None:
        self._product = product
        self._key_hash = base64url.digest(key.encode())
        name = files.file_name(product)
        self.path = state_dir / f"{name}-{self._key_hash[:_NAMED_BY]}.lease.json"
        self._floors = (state_dir / f"{name}.floor.json", floor_dir / f"{name}.floor.json")

    def token(self) -> str | None:
        """The saved token as it came; None where there is none. Raises `Damaged`, and `files.Unreadable`."""
        try:
            saved = files.read(self.path)
        except files.Unreadable:
            raise
        except ValueError:
            raise Damaged from None
        if saved is None:
            return None
        token = saved.get("token")
        if saved.get("format") != _FORMAT or not isinstance(token, str):
            raise Damaged
        return token

    def save(self, token: str, *, fingerprint: str, server: str) -> None:
        """Keeps a token that has been verified, in place of the one before."""
        about = {"product": self._product, "kh": self._key_hash, "fp": fingerprint, "server": server}
        files.write(self.path, {"format": _FORMAT, **about, "token": token})

    def delete(self) -> None:
        files.remove(self.path)

    def floor(self) -> int | None:
        """The time (Unix seconds) that a clock must not be far below; None where neither place holds one."""
        floors = self._highest()
        return _higher(floors.signed, floors.local)

    def settle_floor(self, signed: int, local: int) -> None:
        """A verdict on a call just made was signed at `signed`, while this machine's clock said `local`.

        Its nonce proves that this is the time now: a floor that lies above it came from a clock that was wrong.
        """
        before = self._highest().signed
        keeps = before is not None and signed < before <= signed + _LEEWAY_S
        self._keep(Floors(before if keeps else signed, local))

    def raise_local_floor(self, local: int) -> None:
        """The saved token was used at `local`: a clock that is set back later does not prolong it."""
        self._keep(self._highest().joined(Floors(local=local)))

    def _highest(self) -> Floors:
        first, second = (_floors_in(path) for path in self._floors)
        return first.joined(second)

    def _keep(self, floors: Floors) -> None:
        """Writes both places, where they are lost, damaged or hold anything else."""
        for path in self._floors:
            if _floors_in(path) != floors:
                files.write(path, {"format": _FORMAT, "floor": floors.signed, "local": floors.local})


def _floors_in(path: Path) -> Floors:
    try:
        kept = files.read(path) or {}
    except ValueError:
        return Floors()
    return Floors(_moment_in(kept, "floor"), _moment_in(kept, "local"))


def _moment_in(kept: dict[str, Any], name: str) -> int | None:
    at = kept.get(name)
    return at if type(at) is int and 0 <= at <= _MAX_TIME else None


def _higher(one: int | None, other: int | None) -> int | None:
    return max((at for at in (one, other) if at is not None), default=None)
