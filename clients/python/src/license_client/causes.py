"""Why no server let the client in: the most telling of what its attempts met, for a sentence to the user.

Nothing here is signed and nothing here decides: a relay that lies about the time or a limit changes a text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What kept the client out, the most telling first."""

    OTHER_PRODUCT = "OTHER_PRODUCT"
    ACCESS_KEY = "ACCESS_KEY"
    RATE_LIMITED = "RATE_LIMITED"
    CLOCK = "CLOCK"
    PROXY = "PROXY"
    INTERCEPTED = "INTERCEPTED"
    LOGIN_PAGE = "LOGIN_PAGE"
    BUSY = "BUSY"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed. `retry_after`: seconds; `server_time`: Unix seconds, as far as the server gave them."""

    reason: str
    retry_after: int | None = None
    server_time: int | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`seconds`: until the next try, or by which this machine's clock is off; None where that is not known."""

    cause: Cause
    seconds: int | None = None


#: A clock that is off by less than this many seconds keeps nobody out.
_CLOCK_LEEWAY_S = 300
_DAY_S = 86_400

_PATTERNS = (
    (Cause.OTHER_PRODUCT, r"verdict refused: aud"),
    (Cause.CLOCK, r"tls date|status 401 TIMESTAMP_SKEWED"),
    (Cause.ACCESS_KEY, r"status 401( .*)?"),
    (Cause.RATE_LIMITED, r"status 429( .*)?"),
    (Cause.PROXY, r"status 407( .*)?|proxy"),
    (Cause.INTERCEPTED, r"tls"),
    (Cause.LOGIN_PAGE, r"no verdict|status 3\d\d( .*)?|status 511( .*)?"),
    (Cause.BUSY, r"status 5\d\d( .*)?"),
)


def diagnosis(failures: Sequence[Failure], *, now: int, floor: int | None) -> Diagnosis:
    """The most telling cause. `now`: this machine's clock; `floor`: the highest time that it has seen, if any."""
    causes = [_cause_of(failure.reason) for failure in failures]
    cause = min(causes, key=list(Cause).index, default=Cause.UNREACHABLE)
    if cause is Cause.RATE_LIMITED:
        waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
        return Diagnosis(cause, min(waits, default=None))
    if cause is Cause.INTERCEPTED and floor is not None and floor - now > _DAY_S:
        # A certificate is refused while the clock is below what it has shown before: for that, most likely.
        cause = Cause.CLOCK
    if cause is Cause.CLOCK:
        return Diagnosis(cause, _clock_offset(failures, now, floor))
    return Diagnosis(cause)


def rounded_up(seconds: int, unit: int) -> int:
    """How many units of so many seconds, at least one."""
    return max(1, math.ceil(seconds / unit))


def _cause_of(reason: str) -> Cause:
    return next((cause for cause, pattern in _PATTERNS if re.fullmatch(pattern, reason)), Cause.UNREACHABLE)


def _clock_offset(failures: Sequence[Failure], now: int, floor: int | None) -> int | None:
    """By how many seconds this machine's clock is off, by the servers' times, else by what it has shown before."""
    times = [failure.server_time for failure in failures if failure.server_time is not None]
    if not times and floor is not None and floor > now:
        times = [floor]
    offsets = [abs(at - now) for at in times if abs(at - now) > _CLOCK_LEEWAY_S]
    return max(offsets, default=None)
