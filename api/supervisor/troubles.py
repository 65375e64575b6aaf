"""Which of `api.node.troubles` this node is in: published for `/readyz`, and logged when each begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from api import logs
from api.ledger.errors import LedgerReadOnly, LedgerUnavailable
from api.node.clock import Clock, Dispute, timestamp
from api.node.clock_judge import ClockSource
from api.node.troubles import Trouble
from api.supervisor import settings_digest
from failover import Status
from failover.heartbeat import Beat, youngest_alive
from failover.queue import QueueStats
from failover.replay import Held

_log = logs.get("supervision")

#: By how much a machine's wall clock may be off before that is a trouble, in seconds.
CLOCK_OFF_S = 60.0
#: For how many seconds after the start of a supervisor its peers may be starting as well.
_PEERS_START_S = 60.0
#: How full a queue is when that becomes a trouble: there is still time to act.
_NEARLY_FULL = 0.9


def of_the_cluster(status: Status, heartbeat_timeout: float) -> Iterator[str]:
    """What the heartbeats show; `heartbeat_timeout`: how old one of a live process may be, in seconds."""
    for rank, nodes in sorted(status.doubled.items()):
        yield Trouble.RANK_TWICE(nodes=" and ".join(nodes), rank=rank)
    for node, processes in sorted(status.twins.items()):
        yield Trouble.NODE_TWICE(node=node, processes=processes)
    alive = youngest_alive(status.beats, heartbeat_timeout)
    digests = {node: beat.report.settings_digest for node, beat in alive.items()}
    for setting, (first, *others) in settings_digest.differing(digests):
        values = [_have(first, "one"), *(_have(nodes, "another") for nodes in others)]
        yield Trouble.SETTING_DIFFERS(setting=setting, values=", ".join(values))


def _have(nodes: Sequence[str], what: str) -> str:
    return f"{' and '.join(nodes)} {'has' if len(nodes) == 1 else 'have'} {what}"


def of_the_clock(clock: Clock) -> Iterator[str]:
    """This machine's wall clock against the ledger's, by which answers go; and clocks that were set."""
    if clock.dispute is not None:
        yield trouble_of(clock.dispute)
    elif abs(clock.wall_skew) > CLOCK_OFF_S:
        way = "ahead of" if clock.wall_skew > 0 else "behind"
        yield Trouble.WALL_CLOCK(seconds=f"{CLOCK_OFF_S:g}", way=way)


def of_the_ledger(error: LedgerUnavailable | None) -> Iterator[str]:
    """`error`: why the last poll failed."""
    if isinstance(error, LedgerReadOnly):
        yield Trouble.READ_ONLY(reason=error)
    elif error is not None:
        yield Trouble.LEDGER(reason=error)


def trouble_of(dispute: Dispute) -> str:
    """Clocks that do not agree, as a sentence."""
    own, wall = _moment(dispute.own), _moment(dispute.wall)
    if dispute.ledger is None:
        return Trouble.OWN_CLOCK(own=own, wall=wall)
    which = Trouble.LEDGER_CLOCK if dispute.belief is ClockSource.CARRIED else Trouble.CLOCKS
    return which(ledger=_moment(dispute.ledger), own=own, wall=wall)


def _moment(at: float) -> str | None:
    try:
        return timestamp(at)
    except (ValueError, OverflowError, OSError):  # a clock may say any year
        return f"{at:.0f} s"


def of_the_copy(reason: str | None) -> Iterator[str]:
    """`reason`: why the snapshot could not be written."""
    if reason is not None:
        yield Trouble.COPY(reason=reason)


def of_what_is_shown(objection: str | None, contradicts: bool, moved_file: Path | None) -> Iterator[str]:
    """`objection`: why the ledger must not take the place of the one that was copied; `contradicts`: whether it did

    not show what this node's copy holds; `moved_file`: that of an embedded one which is not where it was.
    """
    if objection is not None:
        yield objection
    if contradicts:
        yield Trouble.CONTRADICTED()
    if moved_file is not None:
        yield Trouble.FILE_MOVED(file=moved_file)


def of_the_counts(mended: int) -> Iterator[str]:
    """`mended`: how many licenses' counts this process has put right as the leader."""
    if mended:
        yield Trouble.COUNTS(licenses=mended)


def of_the_queue(reason: str | None, filled: float) -> Iterator[str]:
    """`reason`: why the queue cannot be used; `filled`: how full it is, from 0 to 1."""
    if reason is not None:
        yield Trouble.QUEUE(reason=reason)
    if filled >= 1.0:
        yield Trouble.QUEUE_FULL()
    elif filled >= _NEARLY_FULL:
        yield Trouble.QUEUE_NEARLY_FULL()


def of_the_replay(held: Held | None, stats: QueueStats) -> Iterator[str]:
    """`held`: what keeps events in the queue, where that has lasted; `stats`: the queue's, for what was set aside."""
    if held is not None:
        yield (Trouble.QUEUE_NOT_TAKEN if held.everything else Trouble.QUEUE_HELD_UP)(reason=held.reason)
    if stats.dead:
        yield Trouble.SET_ASIDE(count=stats.dead, oldest=timestamp(stats.oldest_dead_at))


def of_others_locks(blocked: bool) -> Iterator[str]:
    """`blocked`: whether tables that every call needs are locked."""
    if blocked:
        yield Trouble.LOCKED()


def of_what_was_set_aside(files: Iterable[Path]) -> Iterator[str]:
    """`files`: queues of other ledgers that this node was at before."""
    for file in files:
        yield Trouble.QUEUE_OF_ANOTHER_LEDGER(file=file.name)


class Peers:
    """The nodes that `PEER_URLS` names, held against the heartbeats: a peer with another ledger beats elsewhere."""

    def __init__(self, urls: Sequence[str], monotonic: Callable[[], float]) -> None:
        """`urls`: as the settings give them; none of them are missed before the peers have had time to start."""
        self._urls, self._monotonic = urls, monotonic
        self._expected_from = monotonic() + _PEERS_START_S

    def troubles(self, beats: Sequence[Beat], *, ledger_reachable: bool) -> Iterator[str]:
        """One sentence for all peers that have never beaten here; none while the ledger cannot be asked."""
        if not self._urls or not ledger_reachable or self._monotonic() < self._expected_from:
            return
        beating = {beat.report.url.lower() for beat in beats if beat.report.url}
        unseen = [url for url in self._urls if url.lower() not in beating]
        if unseen:
            yield Trouble.PEER_UNSEEN(urls=", ".join(unseen))


class WarningLog:
    """Logs a trouble when it comes up, and once more when it is over."""

    def __init__(self) -> None:
        self._now: tuple[str, ...] = ()

    def update(self, troubles: Iterable[str]) -> tuple[str, ...]:
        """Takes in the present `troubles` and gives them; logs each that began or ended since the last call."""
        before, self._now = self._now, tuple(troubles)
        for one in self._now:
            if one not in before:
                _log.error("trouble", extra={"what": one})
        for one in before:
            if one not in self._now:
                _log.info("the trouble is over", extra={"what": one})
        return self._now
