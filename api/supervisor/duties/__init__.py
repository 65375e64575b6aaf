"""What must run once in the whole cluster: the leader's duties, each in transactions that begin with the fence."""

from api.supervisor.duties.counts import Proof
from api.supervisor.duties.leader import Duties, run_on
from api.supervisor.duties.outbox import Entry, mark_sent, unsent
from api.supervisor.duties.terms import Term, Writing
from api.supervisor.duties.watching import counted, counting_since, watched

__all__ = [
    "Duties",
    "Entry",
    "Proof",
    "Term",
    "Writing",
    "counted",
    "counting_since",
    "mark_sent",
    "run_on",
    "unsent",
    "watched",
]
