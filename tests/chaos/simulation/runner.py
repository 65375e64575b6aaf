"""Runs scenario after scenario until so many steps are done, and makes the shortest trace of the first that fails."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.simulation.kernel import Violation
from tests.chaos.simulation.scenario import Item, Scenario, draw
from tests.chaos.simulation.world import World

#: Of so many scenarios one uses the real SQL of the lease and the heartbeats, and another the real queue's file.
_SQL_EVERY, _FILES_EVERY = 12, 30
#: How many shorter runs are tried at most to find the shortest.
_TRIES = 400


@dataclass(frozen=True)
class Run:
    """How one scenario went. `trace` only where it was asked for."""

    scenario: Scenario
    steps: int
    counts: Counter[str]
    violation: Violation | None
    trace: Sequence[tuple[float, str]] = ()


@dataclass
class Tally:
    """What all runs together came to; `failed`: the first that broke a promise, at its shortest."""

    seed: str
    runs: int = 0
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: Run | None = None

    def lines(self) -> Iterator[str]:
        """The report."""
        yield f"seed {self.seed}: {self.runs} scenarios, {self.steps} steps"
        yield from (f"  {name}: {count}" for name, count in sorted(self.counts.items()))
        if self.failed is not None:
            yield from told(self.failed)


def told(run: Run) -> Iterator[str]:
    """The failure, what was to happen, and what happened."""
    scenario = run.scenario
    yield f"BROKEN: {run.violation}" if run.violation else "every promise held"
    flags = " --sql" * scenario.sql + " --files" * scenario.files
    yield f"in --scenario {scenario.seed}{flags} with {scenario.nodes} nodes and {scenario.config}"
    yield f"{len(scenario.items)} faults and calls:"
    yield from (f"  {at:8.3f} {line}" for at, line in run.trace)


def play(scenario: Scenario, *, keep_trace: bool = False) -> Run:
    """One scenario, from its start to its end or to the first promise that is broken."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as folder, _quiet():
        world = World(scenario, Path(folder), keep_trace)
        violation = None
        try:
            world.run()
        except Violation as broken:
            violation = broken
        counts = world.watcher.tally()
    return Run(scenario, world.kernel.steps, counts, violation, world.kernel.trace or ())


def simulate(
    seed: str,
    steps: int,
    said: Callable[[str], None] = lambda line: None,
    *,
    sql: bool = False,
    files: bool = False,
    search: bool = True,
) -> Tally:
    """Plays scenarios of `seed` until `steps` steps are done or one fails, and that one (`search`) at its shortest.

    `sql`, `files`: all of them, and not one now and then, with the real statements, or with the real queue's file.
    """
    tally = Tally(seed)
    while tally.steps < steps and tally.failed is None:
        number = tally.runs
        with_sql, with_files = sql or number % _SQL_EVERY == 5, files or number % _FILES_EVERY == 7
        run = play(draw(f"{seed}/{number}", sql=with_sql, files=with_files))
        tally.runs, tally.steps = tally.runs + 1, tally.steps + run.steps
        tally.counts += run.counts
        if run.violation is not None:
            said(f"scenario {run.scenario.seed}: {run.violation}")
            tally.failed = shortest(run) if search else run
    return tally


def shortest(run: Run) -> Run:
    """The same failure with as few faults and calls as can be: each that is left is needed."""
    assert run.violation is not None
    rule, tries = run.violation.rule, 0
    items = list(run.scenario.items)

    def fails(some: Sequence[Item]) -> bool:
        nonlocal tries
        tries += 1
        found = play(replace(run.scenario, items=tuple(some))).violation
        return found is not None and found.rule == rule

    for group in sorted({_group(item) for item in items}):
        fewer = [item for item in items if _group(item) != group]
        if fails(fewer):
            items = fewer
    size = max(1, len(items) // 2)
    while tries < _TRIES:
        before = len(items)
        for start in range(len(items) - size, -size, -size):
            fewer = items[: max(0, start)] + items[max(0, start) + size + min(0, start) :]
            if len(fewer) < len(items) and tries < _TRIES and fails(fewer):
                items = fewer
        if size == 1 and len(items) == before:
            break
        size = max(1, size // 2)
    return play(replace(run.scenario, items=tuple(items)), keep_trace=True)


def _group(item: Item) -> str:
    return item.key or item.kind


@contextmanager
def _quiet() -> Iterator[None]:
    """The code under test says a lot about its faults."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
