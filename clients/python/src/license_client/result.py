"""What every call gives back: frozen, and made of signed claims or local rules only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from license_client import codes
from license_client.errors import ActivationNeeded, Denied, NoServer, OfflineRefused


@dataclass(frozen=True, slots=True)
class Attempt:
    """One server that was asked and did not decide. `reason`: `refused`, `timeout`, `status 503 ...`, ..."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Whether the program may run, and why.

    `code`: the contract's, or one of `codes.Local`. `source`: who decided; `server`: its URL, None offline.
    `expires`: when the license ends (None: never, or not known); `offline_until`: until when the saved token carries
    this machine without a server (None: there is none). Both in UTC.
    `uses`, `max_uses`: as signed, None offline. `as_of`: how fresh the server's knowledge was. `node`: its name.
    `request_id`: the same on every server that was asked. `attempts`: who did not decide, in order.
    """

    valid: bool
    code: str
    detail: str
    source: Literal["server", "offline"]
    act: str
    request_id: str
    server: str | None = None
    expires: datetime | None = None
    offline_until: datetime | None = None
    entitlements: tuple[str, ...] = ()
    uses: int | None = None
    max_uses: int | None = None
    node: str | None = None
    as_of: datetime | None = None
    attempts: tuple[Attempt, ...] = ()

    def require(self) -> Self:
        """This result where it is valid. Raises the `NotLicensed` that fits otherwise."""
        if self.valid:
            return self
        if self.source == "server":
            raise ActivationNeeded(self) if self.code in codes.ACTIVATION_NEEDED else Denied(self)
        raise NoServer(self) if self.code == codes.Local.NO_SERVER else OfflineRefused(self)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: times in RFC 3339."""
        return {
            name: timestamp(value) if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }


def moment(at: int | None) -> datetime | None:
    """Unix seconds as a time in UTC; None for null, and for what no calendar holds."""
    try:
        return None if at is None else datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
