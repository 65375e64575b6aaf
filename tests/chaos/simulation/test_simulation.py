"""The simulation itself: 200,000 steps of it, that it is the same twice, and that what it shows is the shortest."""

from __future__ import annotations

import random

import pytest

from tests.chaos.simulation import reference
from tests.chaos.simulation.kernel import Violation
from tests.chaos.simulation.runner import play, shortest, simulate, told
from tests.chaos.simulation.scenario import draw
from tests.chaos.simulation.watcher import Watcher

STEPS = 200_000
SEEDS = ("1", "2", "3", "4")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_after_every_step(seed: str) -> None:
    tally = simulate(seed, STEPS // len(SEEDS))
    print("\n".join(tally.lines()))
    assert tally.failed is None, "\n".join(tally.lines())
    assert tally.steps >= STEPS // len(SEEDS)
    for what in ("faults", "served", "denied", "answered from the queue", "changes of the lease", "effects of leaders"):
        assert tally.counts[what] > 0, f"{what} never happened, so nothing was tried"


def test_the_same_seed_is_the_same_run_to_the_last_step() -> None:
    runs = [play(draw("same", sql=True, files=True), keep_trace=True) for _ in range(2)]
    assert runs[0].violation is None
    assert runs[0].steps == runs[1].steps
    assert runs[0].trace == runs[1].trace


def test_a_broken_promise_is_shown_with_the_shortest_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that forbids what two faults together bring about is given both of them, and nothing else."""
    forbidden = ("crash", "database stops")

    def complain(self: Watcher) -> None:
        ended = [line for _, line in self.kernel.trace or () if line.startswith("---")]
        if all(any(kind in line for line in ended) for kind in forbidden):
            raise Violation("made up", "both happened")

    monkeypatch.setattr(Watcher, "after_step", complain)
    monkeypatch.setattr("tests.chaos.simulation.kernel.Kernel.__init__", _with_trace())
    seed = next(seed for seed in map(str, range(100)) if _has(seed, forbidden))
    short = shortest(play(draw(seed)))
    assert short.violation is not None
    assert sorted(item.kind for item in short.scenario.items) == sorted(forbidden)
    said = "\n".join(told(short))
    assert "made up: both happened" in said
    assert f"scenario {seed}" in said
    assert len(short.trace) < 40


def test_the_reference_is_not_the_merge_a_second_time() -> None:
    """It must not share code with what it judges."""
    names = vars(reference)
    assert not {"merge", "decide", "take_seat", "free_seat", "with_machine"} & names.keys()


def test_leaving_a_call_out_leaves_the_other_items_as_they_were() -> None:
    seed = str(random.Random(7).random())
    assert draw(seed).items == draw(seed).items
    assert draw(seed).items != draw(seed + "0").items


def _has(seed: str, kinds: tuple[str, ...]) -> bool:
    return set(kinds) <= {item.kind for item in draw(seed).items}


def _with_trace() -> object:
    from tests.chaos.simulation.kernel import Kernel

    original = Kernel.__init__

    def init(self: Kernel, keep_trace: bool = False) -> None:
        original(self, keep_trace=True)

    return init
