"""What can go wrong, split by who can do something about it.

    LicenseClientError
    ├── ConfigurationError        the program is set up wrongly: its author corrects it (also a ValueError)
    │   └── KeyMalformed          this can be no license key: ask the customer for it again
    ├── TokenInvalid              a token decides nothing; `reason` says why (from `Verifier`)
    └── NotLicensed               `Result.require()`: the program may not run; `result` has all of it
        ├── Denied                a server said no: the customer renews, frees a seat, asks the vendor
        │   └── ActivationNeeded  this machine has no seat or no heartbeat yet: call `activate` or `ping`
        └── Undecided             no server gave a verdict, and nothing saved lets the program run
            ├── NoServer          nothing is saved either: check the network, try again
            └── OfflineRefused    what is saved does not do (any more): go online once, set the clock right

The methods of `LicenseClient` raise nothing for networks, servers and tokens: they return a `Result` always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from license_client.result import Result


class LicenseClientError(Exception):
    """Anything this package raises on purpose."""


class ConfigurationError(LicenseClientError, ValueError):
    """An argument that cannot work. The message names it and never shows a secret."""


class KeyMalformed(ConfigurationError):
    """A text that can be no license key: not 8 to 128 printable characters."""


class TokenInvalid(LicenseClientError):
    """A token that decides nothing. `reason` is one of those in tests/vectors/README.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the token is refused: {reason}")
        self.reason = reason


class NotLicensed(LicenseClientError):
    """The program may not run. `result` says why and what was tried."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.code}: {result.detail}")
        self.result = result


class Denied(NotLicensed):
    """A server's verdict."""


class ActivationNeeded(Denied):
    """The license is good; this machine has to be activated, or to send its first or next ping."""


class Undecided(NotLicensed):
    """Nobody could say yes or no."""


class NoServer(Undecided):
    """No server gave a verdict, and no token is saved for this license on this machine."""


class OfflineRefused(Undecided):
    """No server gave a verdict, and the saved token is expired, is not this machine's, or the clock was set back."""
