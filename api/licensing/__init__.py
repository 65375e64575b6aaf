"""What a license is and how it is judged: frozen values and one pure function. No I/O, no clock, no framework."""

from api.licensing.certain import is_certain
from api.licensing.codes import IDEMPOTENT_ACTS, WRITING_ACTS, Act, Code
from api.licensing.decide import decide, retried
from api.licensing.merge import Merged, Past, merge
from api.licensing.model import (
    ALWAYS,
    DAY,
    MOST_DEPARTED,
    MOST_NEVER_CAME,
    UNWATCHED,
    Call,
    Holding,
    License,
    Machine,
    Policy,
    Verdict,
    Watch,
    machine_id,
)

__all__ = [
    "ALWAYS",
    "DAY",
    "IDEMPOTENT_ACTS",
    "MOST_DEPARTED",
    "MOST_NEVER_CAME",
    "UNWATCHED",
    "WRITING_ACTS",
    "Act",
    "Call",
    "Code",
    "Holding",
    "License",
    "Machine",
    "Merged",
    "Past",
    "Policy",
    "Verdict",
    "Watch",
    "decide",
    "is_certain",
    "machine_id",
    "merge",
    "retried",
]
