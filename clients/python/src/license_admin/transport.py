"""How the admin's calls reach a server: whole answers within a deadline, and long ones as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from license_client.transport import Reply

#: Bytes of an answer that is held whole. A batch of 500 licenses takes about 300 KB.
MAX_ANSWER = 8 * 1024 * 1024


class AdminTransport(Protocol):
    """The seam for tests; the client's own `RequestsTransport` is one."""

    def request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float, limit: int
    ) -> Reply:
        """The whole answer, of at most `limit` bytes, within `timeout` seconds. Raises `TransportFailed`."""

    def download(self, url: str, headers: Mapping[str, str], timeout: float, sink: Callable[[bytes], None]) -> Reply:
        """Passes the body of a 200 on to `sink` as it comes; any other answer is given whole. `timeout` is of each
        read. Raises `TransportFailed`, and what `sink` raises."""

    def close(self) -> None:
        """Gives back what it holds."""
