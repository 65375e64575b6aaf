"""What can go wrong, split by who can do something about it; each ends the program with a status of its own.

AdminError
├── Misused      2  the command, its settings or a file of its own are wrong
├── Refused      1  a server said no: what it said is the message
│   └── NotAllowed  5  the token is wrong, or has not the scope
├── NoServer     3  none of the servers gave an answer
└── NotOne       4  no license (policy, token) fits what was named, or several do
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from license_client.result import Attempt

#: By number, as the help shows them.
EXIT_STATUSES = {
    0: "done",
    1: "a server refused it, or not all of it was done; the message says why",
    2: "the command, its settings or a file are wrong",
    3: "no server answered",
    4: "no license, policy or token fits what was named, or several do",
    5: "the token is wrong, or has not the scope",
    130: "interrupted with Ctrl-C, or not confirmed",
}


class AdminError(Exception):
    """Anything that ends a command. Its text is a sentence for people and never shows a secret."""

    exit_status: ClassVar[int] = 1

    def members(self) -> dict[str, Any]:
        """The same for programs."""
        return {"code": type(self).__name__.upper(), "detail": str(self)}


class Misused(AdminError):
    """To be corrected by who calls this program."""

    exit_status = 2


class Refused(AdminError):
    """`problem`: what the server said (RFC 9457), with `code` and `detail`."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or problem.get("code")))
        self.problem = problem

    @property
    def code(self) -> str:
        return str(self.problem.get("code"))

    def members(self) -> dict[str, Any]:
        return dict(self.problem)


class NotAllowed(Refused):
    """401 or 403."""

    exit_status = 5


class NoServer(AdminError):
    """`attempts`: which server did not answer, and why, in the order in which they were asked."""

    exit_status = 3

    def __init__(self, attempts: Sequence[Attempt], repeat: str | None = None) -> None:
        """`repeat`: the request id under which the call may be sent again without a second effect."""
        reasons = dict.fromkeys(f"{attempt.server}: {attempt.reason}" for attempt in attempts)
        text = "no server answered.\n" + "\n".join(f"  {reason}" for reason in reasons)
        if repeat is not None:
            text += f"\nIt may have been done all the same. To repeat it without doing it twice: --request-id {repeat}"
        super().__init__(text)
        self.attempts = tuple(attempts)
        self.repeat = repeat

    def members(self) -> dict[str, Any]:
        tried = [{"server": attempt.server, "reason": attempt.reason} for attempt in self.attempts]
        return {"code": "NO_SERVER", "detail": "no server answered", "attempts": tried, "request_id": self.repeat}


class NotOne(AdminError):
    """`candidates`: those that fit, of which one has to be named by its id; none where nothing fits."""

    exit_status = 4

    def __init__(self, text: str, candidates: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(text)
        self.candidates = [dict(one) for one in candidates]

    def members(self) -> dict[str, Any]:
        return {"code": "NOT_ONE", "detail": str(self), "candidates": self.candidates}
