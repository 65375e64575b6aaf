"""The codes of results. What each means in a sentence is in texts."""

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
