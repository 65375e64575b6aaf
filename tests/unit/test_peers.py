"""Peers that `PEER_URLS` names and no heartbeat tells of: most likely they have another ledger."""

from __future__ import annotations

from api.node.troubles import Trouble
from api.supervisor.troubles import Peers
from failover.heartbeat import Beat, Report
from failover.model import Identity

ONE, TWO = "https://one.example", "https://two.example/protecao"


class Now:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def beat(url: str | None, age_s: float = 0.5) -> Beat:
    report = Report(role="standby", state="STANDBY", url=url)
    return Beat(identity=Identity.new("node", 1), age_s=age_s, beat_at=0.0, started_at=0.0, report=report)


def peers(*urls: str) -> Peers:
    now = Now()
    made = Peers(urls, now)
    now.at += 61.0
    return made


def test_a_peer_that_never_beat_in_this_ledger_is_named() -> None:
    said = list(peers(ONE, TWO).troubles([beat(ONE)], ledger_reachable=True))
    assert said == [Trouble.PEER_UNSEEN(urls=TWO)]


def test_all_peers_that_are_missing_are_one_sentence() -> None:
    assert list(peers(ONE, TWO).troubles([beat(None)], ledger_reachable=True)) == [
        Trouble.PEER_UNSEEN(urls=f"{ONE}, {TWO}")
    ]


def test_a_peer_that_sleeps_has_been_seen_and_a_host_is_the_same_in_any_case() -> None:
    beats = [beat(ONE, age_s=86_400.0), beat("https://TWO.example/protecao")]
    assert list(peers(ONE, TWO).troubles(beats, ledger_reachable=True)) == []


def test_nothing_is_said_while_the_ledger_is_away_or_the_peers_may_still_be_starting() -> None:
    assert list(peers(ONE).troubles([], ledger_reachable=False)) == []
    now = Now()
    young = Peers([ONE], now)
    now.at += 59.0
    assert list(young.troubles([], ledger_reachable=True)) == []
    now.at += 2.0
    assert list(young.troubles([], ledger_reachable=True)) == [Trouble.PEER_UNSEEN(urls=ONE)]


def test_without_peer_urls_nobody_is_missed() -> None:
    assert list(peers().troubles([], ledger_reachable=True)) == []
