"""What must run once in the whole cluster: the leader's duties, each in transactions that begin with the fence."""

from api.duties.counts import Proof
from api.duties.leader import Duties, run_on
from api.duties.outbox import Entry, mark_sent, unsent
from api.duties.terms import Term, Writing
from api.duties.watching import counted, counting_since, watched

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
