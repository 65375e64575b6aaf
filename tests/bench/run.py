"""One run: bare, naive and ours take turns at each number of connections, then what is measured once."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from tests.bench import machine
from tests.bench.calls import GOOD
from tests.bench.ledger import events
from tests.bench.load import Window, drive
from tests.bench.stage import PATH, Stage
from tests.support.processes import ServerProcess

SUBJECTS = {"bare": "/bare", "naive": "/naive", "ours": PATH}
_CALLS_PER_S = 5_000


@dataclass(frozen=True)
class Plan:
    """How long a run is. `delay_ms`: what the network between node and Postgres adds to each direction."""

    licenses: int = 1000
    connections: tuple[int, ...] = (1, 16, 64)
    rounds: int = 5
    seconds: float = 4.0
    warm_up_s: float = 3.0
    starts: int = 5
    delay_ms: float = 12.5
    syncs: int = 500


@dataclass(frozen=True)
class Sample:
    """One window. Times in ms, CPU in ms for each good answer; `refused`: answers that were not good."""

    rps: float
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    refused: int


@dataclass
class Results:
    """What a run measured. `samples`: by number of connections and subject, one for each round."""

    machine: str = ""
    fsync_ms: float = 0.0
    samples: dict[tuple[int, str], list[Sample]] = field(default_factory=dict)
    pss_mb: float = 0.0
    starts_s: list[float] = field(default_factory=list)
    delayed: list[Sample] = field(default_factory=list)
    round_trip_ms: float = 0.0
    answered: int = 0
    logged: int = 0


def run(plan: Plan) -> Results:
    """Starts everything, measures, and ends everything."""
    results = Results(machine=machine.describe())
    with tempfile.TemporaryDirectory() as folder, Stage(plan.licenses, Path(folder)) as stage:
        _describe(stage, plan, results)
        results.starts_s = [_start(stage) for _ in range(plan.starts)]
        _take_turns(stage, plan, results)
        _over_a_network(stage, plan, results)
        results.logged = events(stage.url)
    return results


def _describe(stage: Stage, plan: Plan, results: Results) -> None:
    results.fsync_ms = machine.fsync_ms(stage.postgres.data, plan.syncs)
    with psycopg2.connect(stage.url) as connection:
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
            _measure(stage, server, name, max(plan.connections), plan.warm_up_s, results)
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
            most = max(plan.connections)
            _measure(stage, node, "ours", most, plan.warm_up_s, results)
            results.delayed = [_measure(stage, node, "ours", most, plan.seconds, results) for _ in range(plan.rounds)]


def _measure(
    stage: Stage, server: ServerProcess, name: str, connections: int, seconds: float, results: Results
) -> Sample:
    calls = stage.vendor.calls(SUBJECTS[name], int(_CALLS_PER_S * seconds) + connections)
    serving, storing = machine.Tree(server.process), machine.Tree(stage.postgres_process())
    served, stored = serving.cpu_s(), storing.cpu_s()
    with _undisturbed():
        window = drive(server.port, connections, calls, seconds, GOOD)
    if name == "ours":
        results.answered += len(window.latencies)
    return _sample(window, serving.cpu_s() - served, storing.cpu_s() - stored)


def _sample(window: Window, server_s: float, postgres_s: float) -> Sample:
    good = len(window.latencies)
    if not good:
        raise RuntimeError(f"not one good answer, but {dict(window.refused)} by status")
    return Sample(
        rps=window.rps,
        p50=window.percentile(0.5) * 1000,
        p99=window.percentile(0.99) * 1000,
        server_cpu=server_s / good * 1000,
        postgres_cpu=postgres_s / good * 1000,
        refused=window.refused.total(),
    )


def _round_trip_ms(url: str) -> float:
    """The median of what an empty statement takes."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        times = []
        for _ in range(11):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without this process's own garbage collector, which would be measured as the servers' latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def median(samples: list[Sample], name: str) -> float:
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def ratio(over: list[Sample], under: list[Sample]) -> float:
    """The median of the rounds' ratios of answers a second: what disturbs a round disturbs both sides of its ratio."""
    return statistics.median(a.rps / b.rps for a, b in zip(over, under, strict=True))
