"""One run: bare, naive and ours take turns at each number of connections, then what is measured once.

Its parts: that `load`, the same load on an `isolated` node, the `snapshot` of many licenses, and a `small` node of one
worker.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from tests.bench import copying, idle, isolated, machine, small
from tests.bench.calls import GOOD
from tests.bench.copying import Copying
from tests.bench.idle import Idle
from tests.bench.isolated import IsolatedLoad
from tests.bench.ledger import events
from tests.bench.plan import Plan
from tests.bench.sample import Sample, measure
from tests.bench.small import Small
from tests.bench.stage import PATH, Stage
from tests.support.postgres import PostgresServer
from tests.support.processes import ServerProcess

PARTS = ("load", "isolated", "snapshot", "small")
SUBJECTS = {"bare": "/bare", "naive": "/naive", "ours": PATH}


@dataclass
class Results:
    """What a run measured. `samples`: by number of connections and subject, one for each round; the parts: if run."""

    machine: str = ""
    fsync_ms: float = 0.0
    samples: dict[tuple[int, str], list[Sample]] = field(default_factory=dict)
    pss_mb: float = 0.0
    starts_s: list[float] = field(default_factory=list)
    delayed: list[Sample] = field(default_factory=list)
    round_trip_ms: float = 0.0
    answered: int = 0
    logged: int = 0
    isolated: IsolatedLoad | None = None
    copying: Copying | None = None
    idle: Idle | None = None
    small: Small | None = None


def run(plan: Plan, parts: Collection[str] = PARTS) -> Results:
    """Starts everything, measures, and ends everything."""
    results = Results(machine=machine.describe())
    with tempfile.TemporaryDirectory() as name, Stage(plan.licenses, folder := Path(name)) as stage:
        _describe(stage.postgres, stage.url, plan, results)
        if "load" in parts:
            _load(stage, plan, results)
        if "isolated" in parts:
            results.isolated = isolated.measured(stage, plan)
        if {"snapshot", "small"} & set(parts):
            with Stage(plan.many, folder) as large:
                _many_licenses(stage, large, plan, parts, results)
    return results


def _many_licenses(stage: Stage, large: Stage, plan: Plan, parts: Collection[str], results: Results) -> None:
    if "snapshot" in parts:
        results.copying = copying.measured(stage, large, plan)
    if "small" in parts:
        results.small = small.measured(stage, large, plan)


def run_idle(plan: Plan) -> Results:
    """What idle nodes cost, on a Postgres that keeps nothing else: whatever is vacuumed is in its log."""
    results = Results(machine=machine.describe())
    with tempfile.TemporaryDirectory() as name, PostgresServer() as postgres:
        _describe(postgres, postgres.url(), plan, results)
        results.idle = idle.measured(postgres, Path(name), plan.idle_nodes, plan.idle_s)
    return results


def _load(stage: Stage, plan: Plan, results: Results) -> None:
    results.starts_s = [_start(stage) for _ in range(plan.starts)]
    _take_turns(stage, plan, results)
    _over_a_network(stage, plan, results)
    results.logged = events(stage.url)


def _describe(postgres: PostgresServer, url: str, plan: Plan, results: Results) -> None:
    results.fsync_ms = machine.fsync_ms(postgres.data, plan.syncs)
    with psycopg2.connect(url) as connection:
        version = connection.server_version
    results.machine += f", Postgres {version // 10_000}.{version % 10_000}"


def _start(stage: Stage) -> float:
    """Seconds from starting a node on a migrated database to its first valid verdict."""
    began = time.perf_counter()
    with stage.node() as node:
        stage.first_verdict(node)
        return time.perf_counter() - began


def _take_turns(stage: Stage, plan: Plan, results: Results) -> None:
    with stage.node() as node, stage.other("bare") as bare, stage.other("naive") as naive:
        stage.first_verdict(node)
        servers = {"bare": bare, "naive": naive, "ours": node}
        for name, server in servers.items():
            _measure(stage, server, name, plan.most, plan.warm_up_s, results)
        for _ in range(plan.rounds):
            for connections in plan.connections:
                for name, server in servers.items():
                    sample = _measure(stage, server, name, connections, plan.seconds, results)
                    results.samples.setdefault((connections, name), []).append(sample)
        results.pss_mb = machine.Tree(node.process).pss_mb()


def _over_a_network(stage: Stage, plan: Plan, results: Results) -> None:
    with stage.network(plan.delay_ms) as url:
        results.round_trip_ms = _round_trip_ms(url)
        with stage.node(url) as node:
            stage.first_verdict(node)
            most = plan.most
            _measure(stage, node, "ours", most, plan.warm_up_s, results)
            results.delayed = [_measure(stage, node, "ours", most, plan.seconds, results) for _ in range(plan.rounds)]


def _measure(
    stage: Stage, server: ServerProcess, name: str, connections: int, seconds: float, results: Results
) -> Sample:
    sample = measure(stage, server, SUBJECTS[name], connections, seconds, GOOD)
    if name == "ours":
        results.answered += sample.answered
    return sample


def _round_trip_ms(url: str) -> float:
    """The median of what an empty statement takes."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        times = []
        for _ in range(11):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000
