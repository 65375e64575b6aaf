"""A whole run: the cluster, its clients, one fault after the other, and then what it all came to."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from api.signing.keys import parse_signing_keys
from tests.chaos.cluster.clients import Crowd
from tests.chaos.cluster.faults import FAULTS, Scene, cannot_be_made
from tests.chaos.cluster.history import Fault, History, now
from tests.chaos.cluster.judge import Findings, judged
from tests.chaos.cluster.ledger import remains
from tests.chaos.cluster.site import Site, site
from tests.chaos.cluster.walk import Installer

_RATE = 50.0
_CALM_S = 3.0


def run(folder: Path, *, seed: int, faults: int | None, only: tuple[str, ...] = (), short: bool) -> Findings:
    """Makes so many faults (None: every kind once) and judges. Everything written is in `folder`. `only`: kinds."""
    rng, history = random.Random(seed), History()
    with site(folder, FAILBACK_DELAY="3") as cluster, contextlib.closing(customers(cluster)) as installer:
        not_made = cannot_be_made(cluster)
        kinds = [kind for kind in only or FAULTS if kind not in not_made]
        crowd = Crowd(cluster, history, installer, _RATE, seed)
        cluster.start()
        crowd.start()
        time.sleep(_CALM_S)
        troubles = []
        try:
            for kind in islice(_order(kinds, rng, short=short), faults or len(kinds)):
                _make(cluster, history, kind, rng, short=short)
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


def _order(kinds: list[str], rng: random.Random, *, short: bool) -> Iterator[str]:
    """Every kind as often as every other: as they are listed, or mixed anew each time."""
    while True:
        yield from kinds if short else rng.sample(kinds, len(kinds))


def _make(cluster: Site, history: History, kind: str, rng: random.Random, *, short: bool) -> None:
    fault = Fault(kind=kind, began=now())
    history.faults.append(fault)
    try:
        FAULTS[kind](Scene(cluster, fault, rng, short))
        fault.healed = now()
        cluster.steady()
    except AssertionError as error:
        raise AssertionError(f"{kind}: {error}") from None
    finally:
        fault.ended = now()
    took = "" if fault.takeover_s is None else f", another led after {fault.takeover_s:.2f} s"
    failed = sum(not check.answered for check in history.checks if check.began >= fault.began)
    _say(f"{len(history.faults):4} {kind}: {fault.ended - fault.began:.1f} s{took}, {failed} unanswered {fault.note}")
    time.sleep(0.3 if short else rng.uniform(0.2, 1.0))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
