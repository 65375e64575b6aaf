"""The walk: which server is asked when, for how long, and whose answer decides. It knows neither HTTP nor tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from license_client.causes import Failure
from license_client.claims import VerdictClaims
from license_client.result import Attempt
from license_client.servers import Servers
from license_client.text_logs import TextLogs

#: Seconds for a server's whole answer, in the first, second and third pass.
BUDGETS = (2.0, 5.0, 60.0)

#: A denial from a node whose knowledge is older than this many seconds is provisional.
FRESH_S = 60

#: Passes beyond these are for hosts that wake from sleep, and only where nothing else can decide.
_SHORT_PASSES = 2


class AttemptFailed(Exception):
    """A server did not decide. `failure` says why; its reason is for the log and never holds a key."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Answer:
    """A verified verdict and, still to be verified, the offline token that came with it."""

    server: str
    claims: VerdictClaims
    token: str | None

    def is_provisional(self, ledger: str | None) -> bool:
        """Whether it is a denial by old knowledge, or by another ledger than `ledger` (None: any will do)."""
        is_of_another = ledger is not None and self.claims.led != ledger
        return not self.claims.valid and (is_of_another or self.claims.iat - self.claims.as_of > FRESH_S)


@dataclass(frozen=True, slots=True)
class Walked:
    """What the walk came to: the answer that decides, if any, who was asked before, and what those attempts met."""

    answer: Answer | None
    attempts: tuple[Attempt, ...]
    failures: tuple[Failure, ...]


#: Asks one server, for at most so many seconds. Raises `AttemptFailed`.
Ask = Callable[[str, float], Answer]


def walk(
    ask: Ask,
    servers: Servers,
    logs: TextLogs,
    may_go_offline: Callable[[], bool],
    budgets: Sequence[float] = BUDGETS,
    ledger: str | None = None,
) -> Walked:
    """Asks the servers in their order, pass by pass, until one decides.

    A provisional denial decides only after every other server has been asked in both short passes; of several, the
    freshest. The third pass is walked only while `may_go_offline` says that no usable token is saved. `ledger`: the id
    of the ledger that gave the saved token; a denial of another one is provisional.
    """
    attempts: list[Attempt] = []
    failures: list[Failure] = []
    provisional: dict[str, Answer] = {}

    def give_up(server: str, reason: str) -> None:
        attempts.append(Attempt(server, reason))
        logs.failover(server, reason)

    for number, budget in enumerate(budgets):
        if number >= _SHORT_PASSES and (provisional or may_go_offline()):
            break
        for server in servers.order():
            if server in provisional:
                continue
            try:
                answer = ask(server, budget)
            except AttemptFailed as failed:
                servers.failed(server)
                failures.append(failed.failure)
                give_up(server, failed.failure.reason)
                continue
            servers.answered(server)
            if not answer.is_provisional(ledger):
                return Walked(answer, tuple(attempts), tuple(failures))
            provisional[server] = answer
            give_up(server, f"provisional {answer.claims.code}")
    freshest = max(
        provisional.values(), key=lambda answer: (answer.claims.led == ledger, answer.claims.as_of), default=None
    )
    return Walked(freshest, tuple(attempts), tuple(failures))
