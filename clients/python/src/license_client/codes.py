"""The codes of results and what each means in a sentence. The texts are for people; programs go by the code."""

from __future__ import annotations

from enum import StrEnum


class Local(StrEnum):
    """Codes that this client gives by itself. No server ever sends one."""

    OFFLINE_VALID = "OFFLINE_VALID"
    OFFLINE_EXPIRED = "OFFLINE_EXPIRED"
    CLOCK_TAMPERED = "CLOCK_TAMPERED"
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105 (a code, no password)
    NO_SERVER = "NO_SERVER"


#: Denials that end what was granted before: the saved token goes with them.
FINAL_DENIALS = frozenset({"BANNED", "SUSPENDED", "EXPIRED", "NOT_FOUND"})

#: Denials that the program itself can lift, by `activate` or `ping`.
ACTIVATION_NEEDED = frozenset(
    {"NO_MACHINE", "NO_MACHINES", "FINGERPRINT_SCOPE_MISMATCH", "HEARTBEAT_NOT_STARTED", "HEARTBEAT_DEAD"}
)

_DETAILS = {
    "VALID": "is valid",
    "NOT_FOUND": "there is no such license",
    "BANNED": "the license is banned",
    "SUSPENDED": "the license is suspended",
    "OVERDUE": "the license has not checked in for too long",
    "PRODUCT_SCOPE_MISMATCH": "the license is for another product",
    "VERSION_SCOPE_MISMATCH": "the license does not cover this version",
    "ENTITLEMENTS_MISSING": "the license does not include what was asked for",
    "FINGERPRINT_SCOPE_REQUIRED": "the license asks for the machine's fingerprint",
    "NO_MACHINE": "this machine is not activated",
    "NO_MACHINES": "this machine is not activated",
    "FINGERPRINT_SCOPE_MISMATCH": "the license is in use on other machines",
    "HEARTBEAT_NOT_STARTED": "this machine has not sent a ping yet",
    "HEARTBEAT_DEAD": "this machine's last ping is too old",
    "MACHINE_LIMIT_EXCEEDED": "every seat of the license is taken",
    "USES_EXHAUSTED": "every use of the license is used up",
    Local.OFFLINE_VALID: "the saved token holds",
    Local.OFFLINE_EXPIRED: "the saved token has ended",
    Local.CLOCK_TAMPERED: "the machine's clock was set back",
    Local.TOKEN_INVALID: "the saved token is damaged, or not for this license and machine",
    Local.NO_SERVER: "no token is saved",
}
_BY_OUTCOME = {
    ("EXPIRED", True): "has expired and is in its grace period",
    ("EXPIRED", False): "the license has expired",
    ("TOO_MANY_MACHINES", True): "is valid, on more machines than it has seats",
    ("TOO_MANY_MACHINES", False): "the license is in use on too many machines",
}


def detail_of(code: str, valid: bool) -> str:
    """A sentence for a code, known or not."""
    return _BY_OUTCOME.get((code, valid)) or _DETAILS.get(code) or f"the server answered {code}"
