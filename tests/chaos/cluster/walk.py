"""The walk of the list of nodes as customers' programs do it: by the Python client, with the contract's time limits.

The client tells what decides; an event's id and how it was kept are only in the answer itself, which is overheard.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from license_client import LicenseClient, Reply, Result
from license_client.transport import RequestsTransport
from tests.support.nodes import PRODUCT

#: The two passes of every walk. The third, for hosts that wake from sleep, has no place among hosts that are up.
_BUDGETS_S = (2.0, 5.0)
_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Said:
    """What a node answered: the verdict's claims, and `durability` beside them."""

    claims: Mapping[str, Any]
    durability: str


class _Overheard(RequestsTransport):
    """Keeps the last answer of each server."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: dict[str, Reply] = {}

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        reply = super().post(url, body, headers, timeout)
        self.replies[url.partition("/v1/")[0]] = reply
        return reply


class Walker:
    """One installed program: the client for one key on one machine (or without any), with a memory of its own."""

    def __init__(self, client: Callable[..., LicenseClient], key: str, fingerprint: str | None) -> None:
        self._overheard = _Overheard()
        self._client = client(key=key, fingerprint=fingerprint, transport=self._overheard)

    def walk(self, act: str, request_id: str, **fields: Any) -> tuple[Result, Said | None]:
        """One logical check; None where no server decided it."""
        named = {"request_id": request_id} if act in ("activate", "deactivate", "usage") else {}
        result: Result = getattr(self._client, act.replace("-", "_"))(**named, **fields)
        if result.server is None:
            return result, None
        body = json.loads(self._overheard.replies[result.server].body)
        payload = body["verdict"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return result, Said(claims, body["durability"])


class Installer:
    """Makes the clients of all customers. Their machines are not the nodes': what they keep is kept in memory."""

    def __init__(self, urls: Sequence[str], secrets: Mapping[str, str], public_keys: Sequence[Any]) -> None:
        self._given: dict[str, Any] = {"product": PRODUCT, "public_keys": public_keys, "budgets": _BUDGETS_S}
        self._secrets: dict[str, Any] = {"api_key": secrets["API_KEY"], "shared_secret": secrets["SHARED_SECRET"]}
        self._urls = urls
        self._folder = tempfile.TemporaryDirectory(
            prefix="chaos-customers-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None
        )
        self._count = 0

    def install(self, key: str, fingerprint: str | None) -> Walker:
        return Walker(self._client, key, fingerprint)

    def close(self) -> None:
        self._folder.cleanup()

    def _client(self, **own: Any) -> LicenseClient:
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        return LicenseClient(
            self._urls, **self._given, **self._secrets, state_dir=folder, log_dir=self._folder.name, **own
        )
