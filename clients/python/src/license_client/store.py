"""The saved offline token and the floor of signed time. The format is described in clients/python/TOKEN_STORE.md."""

from __future__ import annotations

from pathlib import Path

from license_client import base64url, files

_FORMAT = 1
_MAX_TIME = 2**53 - 1
_NAMED_BY = 16


class Damaged(Exception):
    """What is saved cannot be read as a token."""


class TokenStore:
    """One license's token on this machine, and the highest signed time this product has seen, kept in two places."""

    def __init__(self, state_dir: Path, floor_dir: Path, *, product: str, key: str) -> None:
        self._product = product
        self._key_hash = base64url.digest(key.encode())
        name = files.file_name(product)
        self.path = state_dir / f"{name}-{self._key_hash[:_NAMED_BY]}.lease.json"
        self._floors = (state_dir / f"{name}.floor.json", floor_dir / f"{name}.floor.json")

    def token(self) -> str | None:
        """The saved token as it came; None where there is none. Raises `Damaged`."""
        try:
            saved = files.read(self.path)
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
        """The highest signed time (Unix seconds) that either place holds; None where neither holds one."""
        return max((at for at in map(_floor_in, self._floors) if at is not None), default=None)

    def raise_floor(self, at: int) -> None:
        """A signed time was seen. A place that is lost, damaged or behind is brought up to it; none is ever lowered."""
        highest = max(at, self.floor() or 0)
        for path in self._floors:
            if _floor_in(path) != highest:
                files.write(path, {"format": _FORMAT, "floor": highest})


def _floor_in(path: Path) -> int | None:
    try:
        kept = files.read(path) or {}
    except ValueError:
        return None
    at = kept.get("floor")
    return at if type(at) is int and 0 <= at <= _MAX_TIME else None
