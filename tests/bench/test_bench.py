"""The benchmark itself, in its tiniest form: that it measures and says what it should, not how fast anything is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.bench import plans
from tests.bench.copying import Copying
from tests.bench.idle import Idle
from tests.bench.isolated import IsolatedLoad
from tests.bench.plan import Plan
from tests.bench.report import BEGIN, END, IDLE_BEGIN, IDLE_END, render, targets, write_between
from tests.bench.run import SUBJECTS, Results, run, run_idle
from tests.bench.sample import Sample
from tests.bench.small import Small

_TINIEST = Plan(
    licenses=10, connections=(1, 4), rounds=1, seconds=0.3, warm_up_s=0.3, starts=1, delay_ms=2.0, syncs=5,
    backlog=1_500, many=300, look_ups=20, idle_nodes=1, idle_s=16.0,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_server")
def test_a_tiny_run_measures_everything_and_every_answered_check_is_in_the_log() -> None:
    results = run(_TINIEST, ["load"])
    assert set(results.samples) == {(n, name) for n in (1, 4) for name in SUBJECTS}
    samples = [sample for each in results.samples.values() for sample in each] + results.delayed
    assert len(samples) == 7
    for sample in samples:
        assert sample.rps > 0
        assert 0 < sample.p50 <= sample.p99
        assert sample.refused == 0
    assert results.fsync_ms > 0
    assert results.pss_mb > 1
    assert results.starts_s[0] > 0
    assert results.round_trip_ms >= 2 * _TINIEST.delay_ms
    assert 0 < results.answered <= results.logged
    assert "Postgres" in results.machine


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_server")
def test_every_check_that_is_answered_without_a_database_is_queued_and_ends_up_in_the_ledger() -> None:
    found = run(_TINIEST, ["isolated"]).isolated
    assert found is not None
    assert len(found.ledger) == len(found.isolated) == _TINIEST.rounds
    assert found.answered == found.queued > 0
    assert found.taken == found.recorded >= found.backlog >= _TINIEST.backlog
    assert found.per_s > 0


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_server")
def test_a_copy_of_many_licenses_is_made_while_every_check_is_answered() -> None:
    found = run(_TINIEST, ["snapshot"]).copying
    assert found is not None
    assert not found.refused
    assert found.loaded_s > 0
    assert found.answered > 0
    assert len(found.few) == len(found.many) == len(found.all) == _TINIEST.rounds
    assert found.pss_mb > 1
    assert found.look_up_us > 0


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_server")
def test_an_idle_node_is_measured_on_every_side() -> None:
    found = run_idle(_TINIEST).idle
    assert found is not None
    assert 0 < found.messages <= found.set_and_said
    assert found.received > 0
    assert found.sent > 0
    assert found.wal > 0
    assert len(found.cpu) == found.nodes == 1
    assert any("UPDATE heartbeats" in name for name in found.of_messages)


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_server")
def test_a_node_of_one_worker_is_weighed_idle_and_under_load() -> None:
    found = run(_TINIEST, ["small"]).small
    assert found is not None
    assert found.idle_mb > 1
    assert found.loaded_mb > 1
    assert all(len(sizes) > 2 for sizes in found.parts.values())


def test_an_idle_cluster_that_costs_too_much_is_said_to_and_a_month_is_computed_from_it() -> None:
    idle = Idle(3, 60.0, 6.1, 40.0, 100e6, 300e6, 39e6, [0.9, 1.2, 0.8], Counter({"UPDATE heartbeats": 120}))
    text = render(Results(machine="a machine", idle=idle))
    assert [line.partition(":")[0] for line in text.splitlines() if "reached:" in line] == [
        "- NOT reached", "- reached", "- reached", "- NOT reached",
    ]  # fmt: skip
    assert "| 2.00 | `UPDATE heartbeats` |" in text
    table = plans.month(idle)
    assert "3.0 GB: 60 % of it |" in table
    assert "3.0 GB for each node: $0.15 of it" in table


def test_the_report_has_a_row_for_each_subject_and_a_line_for_each_target() -> None:
    text = render(_made_up(ours=460.0))
    assert text.count("| **ours** |") == 2
    assert text.count("reached: ") == 17
    assert "| 64 | **ours** | 460 |" in text


def test_a_target_that_is_missed_is_said_to_be() -> None:
    reached, missed = targets(_made_up(ours=460.0)), targets(_made_up(ours=440.0))
    assert reached[0] == "- reached: 0.46 × bare Flask at 64 connections (at least 0.45)"
    assert missed[0] == "- NOT reached: 0.44 × bare Flask at 64 connections (at least 0.45)"


def test_one_event_that_is_not_in_the_ledger_is_a_target_missed() -> None:
    assert "- NOT reached: of 60,010 events queued 60,009 are in the ledger afterwards (all)" in targets(
        _made_up(460.0)
    )


def test_the_page_keeps_all_but_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_between(page, BEGIN, END, "new \\1\n")
    write_between(page, BEGIN, END, "newer \\1\n")
    assert page.read_text(encoding="utf-8") == f"# Before\n{BEGIN}\nnewer \\1\n{END}\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Before\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"benchmarks\.md needs one"):
        write_between(page, BEGIN, END, "new\n")
    assert page.read_text(encoding="utf-8") == "# Before\n"


def test_the_documentations_page_has_each_pair_of_markers_once() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [page.count(marker) for marker in (BEGIN, END, IDLE_BEGIN, IDLE_END)] == [1, 1, 1, 1]


def _made_up(ours: float) -> Results:
    def sample(rps: float) -> Sample:
        return Sample(rps=rps, p50=1.0, p99=2.0, server_cpu=0.5, postgres_cpu=0.1, refused=0)

    rates = {"bare": 1000.0, "naive": 50.0, "ours": ours}
    samples = {(n, name): [sample(rates[name])] for n in (16, 64) for name in SUBJECTS}
    isolated = IsolatedLoad(64, [sample(400.0)], [sample(500.0)], 10, 10, 60_010, 60_009, 60_000, 6_000.0)
    copying = Copying(
        (1_000, 100_000), 16, 9.0, 500, Counter(), [sample(500.0)], [sample(490.0)], [sample(480.0)], 200.0, 53.0, 11.0
    )
    small = Small(100_000, 16, 100.0, 150.0, {"idle": [20.0, 80.0]})
    once = {"pss_mb": 100.0, "starts_s": [1.0], "delayed": [sample(600.0)], "round_trip_ms": 25.0}
    return Results(samples=samples, **once, isolated=isolated, copying=copying, small=small)  # type: ignore[arg-type]
