"""One window of load on one server: what clients saw, and what it cost."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench.calls import Vendor
from tests.bench.load import Window, drive
from tests.bench.machine import Tree
from tests.bench.stage import Stage
from tests.support.processes import ServerProcess

_CALLS_PER_S = 5_000


@dataclass(frozen=True)
class Sample:
    """One window. Times in ms, CPU in ms for each good answer; `refused`: answers that were not good."""

    rps: float
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    refused: int
    answered: int = 0


def measure(
    stage: Stage,
    server: ServerProcess,
    path: str,
    connections: int,
    seconds: float,
    good: Sequence[bytes],
    vendor: Vendor | None = None,
) -> Sample:
    """A closed loop of so many connections for so many seconds; an answer is good that has all of `good` in it.

    `vendor`: whose licenses are asked about, instead of all the stage's.
    """
    calls = (vendor or stage.vendor).calls(path, int(_CALLS_PER_S * seconds) + connections)
    serving = Tree(server.process)
    served, stored = serving.cpu_s(), stage.postgres_cpu_s()
    with _undisturbed():
        window = drive(server.port, connections, calls, seconds, good)
    return _sample(window, serving.cpu_s() - served, stage.postgres_cpu_s() - stored)


def median(samples: list[Sample], name: str) -> float:
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def ratio(over: list[Sample], under: list[Sample], name: str = "rps") -> float:
    """The median of the rounds' ratios: what disturbs a round disturbs both sides of its ratio."""
    return statistics.median(float(getattr(a, name) / getattr(b, name)) for a, b in zip(over, under, strict=True))


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
        answered=good,
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without this process's own garbage collector, which would be measured as the servers' latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
