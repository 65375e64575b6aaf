"""A whole run: the cluster, its clients, faults one after the other or two at once, and then what it all came to."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from api.signing.keys import parse_signing_keys
from tests.chaos.cluster.clients import Crowd
from tests.chaos.cluster.history import Fault, History, now
from tests.chaos.cluster.judge import Findings, judged
from tests.chaos.cluster.kinds import FAULTS, cannot_be_made
from tests.chaos.cluster.ledger import remains
from tests.chaos.cluster.plan import planned
from tests.chaos.cluster.scene import Draw, Scene
from tests.chaos.cluster.sightings import Sightings
from tests.chaos.cluster.site import Site, site
from tests.chaos.cluster.walk import Installer
from tests.support.processes import until

#: Checks a second.
RATE = 50.0
_CALM_S = 3.0
#: What checks cost without faults is known better after this, with attackers and without.
_LONG_CALM_S = 20.0
#: How long after the first of two faults the second is made: within the shortest of them, most times.
_LATER_S = 1.5
_PREPARED_S = 120.0


class Load(Protocol):
    """What goes on in the background for the whole run: the crowd of customers, or somebody who means ill."""

    def start(self) -> None: ...

    def stop(self) -> list[str]:
        """Ends it; gives what went wrong with it, not with the nodes."""


def run(
    folder: Path,
    *,
    seed: int,
    faults: int | None,
    pairs: int = 0,
    only: tuple[str, ...] = (),
    short: bool,
    rate: float = RATE,
    loads: Sequence[Callable[[Site, History], Load]] = (),
) -> Findings:
    """Makes so many single faults (None: every kind once) and pairs, and judges.

    Everything written is in `folder`. `only`: kinds. `rate`: checks a second. `loads`: what goes on besides the crowd
    in a second part of the run, in which the same faults are made again.
    """
    rng, history = random.Random(seed), History()
    with site(folder, FAILBACK_DELAY="3") as cluster, contextlib.closing(customers(cluster)) as installer:
        not_made = cannot_be_made(cluster)
        kinds = [kind for kind in only or FAULTS if kind not in not_made]
        crowd, others = Crowd(cluster, history, installer, rate, seed), [load(cluster, history) for load in loads]
        cluster.start()
        crowd.start()
        plan = planned(kinds, rng, faults, pairs, only=only, short=short)
        troubles = []
        try:
            with Sightings(cluster, history), contextlib.ExitStack() as stack:
                _make_all(cluster, history, plan, rng, short=short, calm_s=_LONG_CALM_S if others else _CALM_S)
                for load in others:
                    stack.callback(lambda load=load: troubles.extend(load.stop()))  # type: ignore[misc]
                    load.start()
                if others:
                    _say("attackers are at work")
                    _make_all(cluster, history, plan, rng, short=short, calm_s=_LONG_CALM_S)
        except AssertionError as error:
            troubles.append(str(error))
            _say(f"THE RUN ENDS HERE: {error}")
        troubles += crowd.stop()
        with contextlib.suppress(AssertionError):
            # What is still on its way from a queue to the ledger is not lost.
            cluster.steady()
        left = remains(cluster)
        history.write(folder / "history.jsonl")
    return judged(history, left, not_made, troubles)


def customers(cluster: Site) -> Installer:
    """Clients that know the cluster's addresses, secrets and keys."""
    keys = parse_signing_keys(cluster.secrets["SIGNING_KEY"])
    return Installer(cluster.urls, cluster.secrets, [key.public_jwk for key in keys])


def _make_all(
    cluster: Site, history: History, plan: list[tuple[Draw, ...]], rng: random.Random, *, short: bool, calm_s: float
) -> None:
    """All faults of the plan, after a while without any. AssertionError: the cluster does not come round."""
    time.sleep(calm_s)
    for draws in plan:
        _make(cluster, history, draws, rng, short=short)


def _make(cluster: Site, history: History, draws: tuple[Draw, ...], rng: random.Random, *, short: bool) -> None:
    """The faults of one turn, until the cluster has come round. AssertionError: it does not."""
    scenes = _scenes(cluster, draws, rng, short=short)
    made = [scene.fault for scene in scenes]
    history.faults += made
    name = " + ".join(fault.kind for fault in made)
    try:
        _make_at_once(scenes, 0.0 if short else rng.uniform(0.0, _LATER_S))
        cluster.steady()
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from None
    finally:
        for fault in made:
            fault.ended = now()
    _tell(history, name, made)
    time.sleep(0.3 if short else rng.uniform(0.2, 1.0))


def _scenes(cluster: Site, draws: tuple[Draw, ...], rng: random.Random, *, short: bool) -> list[Scene]:
    _, epoch = cluster.lease()
    found = []
    for draw in draws:
        overlaps = next((other.kind.name for other in draws if other is not draw), None)
        fault = Fault(kind=draw.kind.name, began=now(), overlaps=overlaps, expects=draw.expects)
        found.append(Scene(cluster, fault, draw, random.Random(rng.random()), epoch, short))
    return found


def _make_at_once(scenes: list[Scene], later_s: float) -> None:
    """The last one so long after the one before it was made; on this thread, at whose end a server's process ends."""
    *others, last = scenes
    with ThreadPoolExecutor(1) as pool:
        begun = [pool.submit(other.make) for other in others]
        for other, made in zip(others, begun, strict=True):
            until(lambda fault=other.fault, made=made: fault.made or made.done(), "a fault made", _PREPARED_S)  # type: ignore[misc]
            time.sleep(later_s)
        last.make()
        for made in begun:
            made.result()


def _tell(history: History, name: str, made: list[Fault]) -> None:
    took = "".join(f", another led after {fault.takeover_s:.2f} s" for fault in made if fault.takeover_s is not None)
    notes = " ".join(fault.note for fault in made if fault.note)
    failed = sum(not check.answered for check in history.checks if check.began >= made[0].began)
    number = len(history.faults)
    _say(f"{number:4} {name}: {made[0].ended - made[0].began:.1f} s{took}, {failed} unanswered {notes}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
