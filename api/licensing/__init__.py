"""What a license is and how it is judged: frozen values and one pure function. No I/O, no clock, no framework."""

from api.licensing.codes import IDEMPOTENT_ACTS, WRITING_ACTS, Act, Code
from api.licensing.decide import decide, retried
from api.licensing.model import DAY, Call, Holding, License, Machine, Policy, Verdict, machine_id

__all__ = [
    "DAY",
    "IDEMPOTENT_ACTS",
    "WRITING_ACTS",
    "Act",
    "Call",
    "Code",
    "Holding",
    "License",
    "Machine",
    "Policy",
    "Verdict",
    "decide",
    "machine_id",
    "retried",
]
