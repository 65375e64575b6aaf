"""What a run makes in turn: single faults and pairs that overlap, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from tests.chaos.cluster.judge import ALONE
from tests.chaos.cluster.kinds import FAULTS
from tests.chaos.cluster.scene import Draw, may_overlap

#: How often a partner is drawn before the next kind is asked for one.
_DRAWS = 200


def planned(
    kinds: list[str], rng: random.Random, faults: int | None, doubled: int, *, only: Sequence[str], short: bool
) -> list[tuple[Draw, ...]]:
    """What a run makes, turn by turn: single faults (None: every kind once) and pairs that overlap."""
    if short and not only and faults is None:
        return every_kind_once(kinds, rng, doubled)
    return _plan(kinds, rng, len(kinds) if faults is None else faults, doubled, short=short)


def every_kind_once(kinds: list[str], rng: random.Random, doubled: int) -> list[tuple[Draw, ...]]:
    """The kinds in their order, but for so many pairs of those that no figure is made of; these come last."""
    singles, pairs = list(kinds), list[tuple[Draw, ...]]()
    for kind in rng.sample(kinds, len(kinds)):
        if len(pairs) < doubled and kind in singles and kind not in ALONE:
            first, rest = FAULTS[kind].draw(rng), [each for each in singles if each != kind and each not in ALONE]
            drawn = (FAULTS[each].draw(rng) for each in rng.sample(rest, len(rest)))
            second = next((other for other in drawn if may_overlap(first, other)), None)
            if second is not None:
                pairs.append(_in_order(first, second))
                singles = [each for each in singles if each not in (kind, second.kind.name)]
    return [*((FAULTS[kind].draw(rng),) for kind in singles), *pairs]


def _in_order(first: Draw, second: Draw) -> tuple[Draw, Draw]:
    """What takes its time to be made comes first, for the other one waits for it; what is over soon comes second."""
    later = (second.kind.prepares, first.kind.brief) > (first.kind.prepares, second.kind.brief)
    return (second, first) if later else (first, second)


def _plan(kinds: list[str], rng: random.Random, faults: int, doubled: int, *, short: bool) -> list[tuple[Draw, ...]]:
    """What is made in turn, each by itself or with the one that it overlaps with: in their order, or mixed."""
    singles = [(FAULTS[kind].draw(rng),) for kind in islice(_order(kinds, rng, short=short), faults)]
    doubles = list(islice(pairs(kinds, rng), doubled)) if doubled else []
    plan: list[tuple[Draw, ...]] = [*singles, *doubles]
    return plan if short else rng.sample(plan, len(plan))


def _order(kinds: list[str], rng: random.Random, *, short: bool) -> Iterator[str]:
    """Every kind as often as every other: as they are listed, or mixed anew each time."""
    while True:
        yield from kinds if short else rng.sample(kinds, len(kinds))


def pairs(kinds: list[str], rng: random.Random) -> Iterator[tuple[Draw, Draw]]:
    """Pairs that may overlap, each kind about as often as every other. ValueError: no two of these may."""
    fruitless = 0
    for kind in _order(kinds, rng, short=False):
        first = FAULTS[kind].draw(rng)
        others = (FAULTS[rng.choice(kinds)].draw(rng) for _ in range(_DRAWS))
        second = next((other for other in others if may_overlap(first, other)), None)
        if second is not None:
            fruitless = 0
            yield _in_order(first, second)
        elif (fruitless := fruitless + 1) > len(kinds):
            raise ValueError(f"no two of {', '.join(kinds)} may overlap")
