"""The ordered servers, and the memory of which of them has just failed."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from license_client import files
from license_client.errors import ConfigurationError

#: Seconds for which a server that failed stands at the end.
AT_THE_END_S = 30.0

_FORMAT = 1


class Servers:
    """URLs in order of priority; one that failed goes to the end for `AT_THE_END_S`.

    The memory is a file, so that the next run of a program that is started for each check knows of it too. Its times
    are the wall clock's: one that lies ahead, because the clock was set back, is forgotten.
    """

    def __init__(self, urls: Sequence[str], memory: Path, now: Callable[[], float]) -> None:
        """Raises `ConfigurationError`."""
        self.urls = checked_urls(urls)
        self._memory = memory
        self._now = now
        self._lock = threading.Lock()
        self._failed_at = _remembered(memory)

    def order(self) -> list[str]:
        """All of them: those that did not just fail as they were given, then the others, the longest failed first."""
        now = self._now()
        with self._lock:
            failed = {url: at for url, at in self._failed_at.items() if 0 <= now - at < AT_THE_END_S}
        return sorted(self.urls, key=lambda url: failed.get(url, float("-inf")))

    def failed(self, url: str) -> None:
        with self._lock:
            self._failed_at[url] = self._now()
            self._keep()

    def answered(self, url: str) -> None:
        with self._lock:
            if self._failed_at.pop(url, None) is not None:
                self._keep()

    def _keep(self) -> None:
        files.write(self._memory, {"format": _FORMAT, "failed_at": self._failed_at})


def checked_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """The URLs without a slash at the end: https, or plain http to loopback. Raises `ConfigurationError`."""
    if isinstance(urls, str) or not urls:
        raise ConfigurationError("servers: a list of at least one URL is needed")
    checked = tuple(_checked(url) for url in urls)
    if len(set(checked)) < len(checked):
        raise ConfigurationError("servers: a URL comes twice")
    return checked


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(f"servers: {url!r} is no URL") from None
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigurationError("servers: a URL must be like https://host or https://host:port and nothing more")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise ConfigurationError(f"servers: {parts.hostname} needs https; plain http is for this machine only")
    return f"{parts.scheme}://{parts.netloc}"


def _remembered(memory: Path) -> dict[str, float]:
    try:
        kept = (files.read(memory) or {}).get("failed_at")
    except ValueError:
        return {}
    if not isinstance(kept, dict):
        return {}
    return {url: float(at) for url, at in kept.items() if isinstance(at, int | float) and not isinstance(at, bool)}
