"""The verdict codes, in Keygen's terms, in their order of precedence.

Source of the terms: https://keygen.sh/docs/api/licenses/#licenses-actions-validate-key
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a license is valid or not. The order of the members is the order of precedence.

    `EXPIRED` stands twice in the contract: early when the license is not valid any more, and just before
    `VALID` when a grace period still holds it up. It is one code; `Verdict.valid` tells the two apart.
    """

    NOT_FOUND = "NOT_FOUND"
    BANNED = "BANNED"
    SUSPENDED = "SUSPENDED"
    EXPIRED = "EXPIRED"
    OVERDUE = "OVERDUE"
    PRODUCT_SCOPE_MISMATCH = "PRODUCT_SCOPE_MISMATCH"
    VERSION_SCOPE_MISMATCH = "VERSION_SCOPE_MISMATCH"
    ENTITLEMENTS_MISSING = "ENTITLEMENTS_MISSING"
    FINGERPRINT_SCOPE_REQUIRED = "FINGERPRINT_SCOPE_REQUIRED"
    NO_MACHINE = "NO_MACHINE"
    NO_MACHINES = "NO_MACHINES"
    FINGERPRINT_SCOPE_MISMATCH = "FINGERPRINT_SCOPE_MISMATCH"
    HEARTBEAT_NOT_STARTED = "HEARTBEAT_NOT_STARTED"
    HEARTBEAT_DEAD = "HEARTBEAT_DEAD"
    MACHINE_LIMIT_EXCEEDED = "MACHINE_LIMIT_EXCEEDED"
    TOO_MANY_MACHINES = "TOO_MANY_MACHINES"
    USES_EXHAUSTED = "USES_EXHAUSTED"
    VALID = "VALID"


class Act(StrEnum):
    """What a client asks for; the `act` claim of a verdict and the type of its event."""

    VALIDATE = "validate"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    PING = "ping"
    CHECK_IN = "check-in"
    USAGE = "usage"
    CHECKOUT = "checkout"


#: One effect per (act, key, request id), whichever node meets the retry.
IDEMPOTENT_ACTS = frozenset({Act.ACTIVATE, Act.DEACTIVATE, Act.USAGE})

#: Acts that change what a license or a machine is, and so are decided under the license's row lock.
WRITING_ACTS = frozenset({Act.ACTIVATE, Act.DEACTIVATE, Act.PING, Act.CHECK_IN, Act.USAGE})
