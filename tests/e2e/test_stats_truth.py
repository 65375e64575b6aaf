"""What three real nodes say of themselves on their way through backup mode, held against the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from api.openapi.stats_view import StatsView
from tests.support.cluster import Json, Member, Site, plays
from tests.support.processes import until

_PATIENCE_S = 90.0
_EVENTS = 15


@pytest.fixture
def site(empty_postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    with contextlib.closing(Site(empty_postgres_url, tmp_path)) as site:
        yield site


def stats(member: Member) -> Json:
    """`/stats` with exactly the members of the contract, each of its type, and consistent in itself."""
    found = member.stats()
    assert msgspec.to_builtins(msgspec.convert(found, StatsView)) == found
    sync = found["sync"]
    if sync["total"] is not None:
        assert sync["total"] == sync["pending"] + sync["synced"] + sync["dead"]
    return found


def synced(member: Member, total: int, pending: int) -> bool:
    sync = stats(member)["sync"]
    return (sync["total"], sync["pending"], sync["synced"]) == (total, pending, total - pending)


@pytest.mark.slow
def test_backup_mode_step_by_step_is_told_truly_by_every_node(site: Site) -> None:
    one, two, three = (site.node(rank) for rank in (1, 2, 3))
    for member in (one, two, three):
        member.ready()
    plays((one, "primary", 1), (two, "standby", 1), (three, "standby", 1))
    sold = site.bought(two, one, three)
    for member in (one, two, three):
        assert member.validate(sold).json()["node"] == {"id": member.id, "role": member.part[0], "epoch": 1}
        until(lambda m=member: [node["id"] for node in stats(m)["nodes"]] == ["node-1", "node-2", "node-3"], "all beat")  # type: ignore[misc]
        until(lambda m=member: synced(m, 0, 0), "nothing was in backup mode")  # type: ignore[misc]

    one.server.kill_tree()
    plays((two, "backup", 2), (three, "standby", 2), deadline=_PATIENCE_S)
    for number in range(_EVENTS):
        answer = (two, three)[number % 2].validate(sold).json()
        assert answer["node"]["epoch"] == 2
    assert site.modes() == {"normal": 3, "backup": _EVENTS}
    for member in (two, three):
        until(lambda m=member: synced(m, _EVENTS, _EVENTS), "15 events, 15 pending")  # type: ignore[misc]
        (takeover,) = stats(member)["failovers"]
        assert (takeover["from"], takeover["to"], takeover["kind"]) == ("node-1", "node-2", "takeover")
        assert takeover["gap_s"] >= 6

    one = site.node(1).ready()
    plays((one, "primary", 3), (two, "standby", 3), (three, "standby", 3), deadline=_PATIENCE_S)
    for member in (one, two, three):
        until(lambda m=member: synced(m, _EVENTS, 0), "0 pending, 15 synced")  # type: ignore[misc]
        until(lambda m=member: len(stats(m)["failovers"]) == 2, "the failback is told")  # type: ignore[misc]
        failback = stats(member)["failovers"][0]
        assert (failback["from"], failback["to"], failback["kind"]) == ("node-2", "node-1", "failback")
        assert (failback["epoch"], failback["gap_s"]) == (3, 0.0)
    assert one.command("switchover", "node-3")[0] == 200
    plays((three, "backup", 4), (one, "standby", 4), deadline=_PATIENCE_S)
    until(lambda: stats(two)["failovers"][0]["kind"] == "switchover", "the switchover is told")
