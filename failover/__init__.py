"""Failover for two or three processes that share a database: every one works, one leads, nothing taken is lost.

What it promises
================
One process at a time holds the *lease*, with an *epoch* that only ever rises. Its holder runs what must run
once. Serving needs no lease, and losing it never stops a process. Nothing here knows what is served.

The states of one process
=========================
::

                    not ready                    ┌───────────────── the database is away ─────────────┐
                   ┌────┐                        │          (from any state that does not lead)       ▼
    start ──► STARTING ─┴──► STANDBY ──► CANDIDATE ──► LEADING ◄──► DRAINING                      ISOLATED
                               ▲ ▲  lease   │  acquired   │  rank 1 is     │ handed over              │
                               │ │  free    │             │  healthy       │                          │ it answers
                               │ └──────────┘             │                │                          ▼
                               │    lost the race         ▼ lost           │           rows wait: REPLAYING
                               └──────────────────────────┴────────────────┴──────────────────────────┘
    any state ──► STOPPING (resigns at once, replays to the end, and is final)
    any state ──► STARTING where it cannot do its work any more (resigns at once)

`decide` is the whole of it: a table read from the top, without I/O and without a clock. `Elector` gathers an
`Observation`, asks `decide` and acts; `Supervisor` gives it a thread, a connection and jobs.

Time and the trust window
=========================
A process trusts its lease until the monotonic moment at which it *sent* the last good renewal, plus the time-out, less
a margin. A renewal that succeeds slowly does not
extend that, and one that fails does not shorten it. Leading is computed from this at the point of use (`is_leader`),
and is never kept as a flag: a process that was frozen wakes up and does not lead.

Others watch the lease, and judge it by their own monotonic clocks (`failover.liveness`): a row that has stayed the same
for a time-out, as its watcher saw it, is free, whatever is stored in it, and one that was seen to change within a
time-out is held. What is stored, by the *database's* clock at the statement, says that it is over where that
clock has kept pace with the watcher's own since the row changed: so a lease that ended before a process started is
free to it at once. A process takes the lease's row as it found it to be over, by compare-and-set; one that was
renewed meanwhile is not taken. Heartbeats are judged in the same way: a process is alive while its row changes. Of a
row that is seen for the first time, the stored age is all there is to go by: within the time-out it is fresh until a
time-out has passed without a change, and below zero it is not fresh before it changes.

What trust cannot give, the fence does: a transaction that only the leader may commit begins with `fence`, which locks
the lease's key against a change of hands until it is committed. A leader that is frozen inside one is freed by the
database after 2 s and cannot commit when it wakes.

When things fail
================
- The leader dies: the lease ends after `heartbeat_timeout`; rank 2 tries at its next look, rank 3 `stagger` later,
  rank 1 without any wait. The epoch is one above the highest that was ever seen.
- The leader stops: it resigns, which ends the lease and keeps its row, so the next look of another finds it free.
- The database is away: trust runs out by itself; events go to the queue. When it answers again, the holder of
  the lease's row goes on with it, and a lease that is free is left to rank 1 for `probe_interval`.
- A renewal changes no row: the lease is another's, and trust ends at once.
- Rank 1 returns: when it has been healthy for `failback_delay`, and the backup has led for as long, nothing is pending
  and the last failback is as long ago, the backup moves the lease to it in one transaction. To rank 1 only.
- The database comes back older: the epochs seen are kept, and none is used again.
- The database's clock is set, forward or back, by seconds or years: a leader that lives goes on (its fence is closed
  until its next renewal where the clock went forward), one that died is succeeded within the time-out, and the dead do
  not come to life. A process that starts just then has seen nothing: it may take a lease that is over by that clock,
  and until the leader's next look the epoch and the fence alone keep the two apart.
- One node runs twice for longer than a deploy (`Config.deploy_overlap`): one of them leads, and `Status.twins` says so.
- The queue's file is damaged: it is set aside, its sound rows are saved, and that is logged at level ERROR.
- An event is not taken: its batch is halved until it is found; it waits, with what comes behind it under its key, and
  the others go on. A try counts only where the event itself is at fault (`failover.proof`); after five it is set aside.
- The queue is full: `QueueFull`, and nothing is dropped in silence.
- The heartbeat table is emptied: every process writes its row again at its next beat; meanwhile there is no failback.
- A transaction pooler stands in between: nothing here lives in a session. A standby listens for word of a lease that
  was resigned or handed over, and that is only a hint: without it, the next beat brings the lease along.
- No client calls a node (`Hooks.is_busy`): it looks at the lease where its beat does not bring it, and in the
  moment in which the lease ends; a busy one looks at every poll, and so finds a database that falls silent before a
  call does.

Any loop can use it: `AutoFailover` is the short way in, `supervise` the full one.
"""

from failover.auto import AutoFailover, SyncManager
from failover.config import Config
from failover.decide import decide
from failover.elector import Elector
from failover.lease import SqlLeaseStore, fence
from failover.model import Action, Decision, Identity, Lease, Observation, Role, State
from failover.queue import Event, EventQueue, QueueLimits
from failover.replay import Replay
from failover.status import Hooks, Status
from failover.supervisor import Supervisor, supervise

__all__ = [
    "Action",
    "AutoFailover",
    "Config",
    "Decision",
    "Elector",
    "Event",
    "EventQueue",
    "Hooks",
    "Identity",
    "Lease",
    "Observation",
    "QueueLimits",
    "Replay",
    "Role",
    "SqlLeaseStore",
    "State",
    "Status",
    "Supervisor",
    "SyncManager",
    "decide",
    "fence",
    "supervise",
]
