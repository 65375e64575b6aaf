"""The copy of many licenses: made while checks are answered, and what a check and a look-up then cost."""

from __future__ import annotations

import random
import sqlite3
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from api.ledger import tables
from api.ledger.records import LicenseQuery
from api.signing import key_claim
from api.snapshot import SNAPSHOT_NAME, Snapshot
from tests.bench.calls import GOOD, Vendor, fingerprint_of
from tests.bench.load import drive
from tests.bench.machine import Tree
from tests.bench.plan import Plan
from tests.bench.sample import Sample, measure
from tests.bench.stage import PATH, Stage
from tests.support.processes import ServerProcess, until

_LOOK_EVERY_S = 0.05
_WINDOW_S = 0.5
_PATIENCE_S = 180.0


@dataclass
class Copying:
    """`loaded_s`: from a node's start on an empty disk to its complete copy; `answered`, `refused` checks meanwhile.

    `few`, `many`: a window of each for every round, on nodes with `licenses` of them; as many different ones are asked
    about on either, since a license's first check in a minute costs more than its next. `all`: about any of the many.
    `look_up_us`: the time of one look-up; `file_mb`: the copy's size.
    """

    licenses: tuple[int, int]
    connections: int
    loaded_s: float = 0.0
    answered: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    few: list[Sample] = field(default_factory=list)
    many: list[Sample] = field(default_factory=list)
    all: list[Sample] = field(default_factory=list)
    pss_mb: float = 0.0
    file_mb: float = 0.0
    look_up_us: float = 0.0


def measured(small: Stage, large: Stage, plan: Plan) -> Copying:
    """A node on each stage; that on the large one is measured from its start."""
    found = Copying((plan.licenses, plan.many), plan.few)
    small_disk, disk = small.new_disk(), large.new_disk()
    began = time.perf_counter()
    with large.node(disk=disk) as many:
        _load_while_asked(large, many, disk, plan, began, found)
        with small.node(disk=small_disk) as few:
            small.first_verdict(few)
            until(lambda: is_copied(small_disk, plan.licenses), "a complete copy", _PATIENCE_S)
            _take_turns((small, few), (large, many), plan, found)
        found.pss_mb = Tree(many.process).pss_mb()
        found.file_mb = (disk / SNAPSHOT_NAME).stat().st_size / 1e6
        found.look_up_us = _look_up_us(disk, large.vendor, plan.look_ups, plan.few)
    return found


def is_copied(disk: Path, licenses: int) -> bool:
    """Whether the copy on a node's disk is complete, and has so many licenses."""
    try:
        snapshot = Snapshot(disk / SNAPSHOT_NAME, reading=True)
    except sqlite3.Error:
        return False
    try:
        position = snapshot.position()
        return position is not None and position.complete and snapshot.count(tables.licenses) == licenses
    finally:
        snapshot.close()


def _load_while_asked(stage: Stage, node: ServerProcess, disk: Path, plan: Plan, began: float, found: Copying) -> None:
    """Asks from the first verdict on until the copy is complete, for one window at least; refusals are counted."""
    done = threading.Event()

    def watch() -> None:
        until(lambda: is_copied(disk, plan.many), "a complete copy", _PATIENCE_S)
        found.loaded_s = time.perf_counter() - began
        done.set()

    stage.first_verdict_of_all(node)
    watching = threading.Thread(target=watch)
    watching.start()
    goes_on = True
    while goes_on:
        goes_on = watching.is_alive()
        calls = stage.vendor.calls(PATH, 2_000)
        window = drive(node.port, plan.few, calls, _WINDOW_S, GOOD)
        found.answered += len(window.latencies)
        found.refused += window.refused
    watching.join()
    if not done.is_set():
        raise RuntimeError("the copy was never complete")


def _take_turns(
    small: tuple[Stage, ServerProcess], large: tuple[Stage, ServerProcess], plan: Plan, found: Copying
) -> None:
    for stage, node in (small, large):
        measure(stage, node, PATH, plan.few, plan.warm_up_s, GOOD)
    everyone = large[0].vendor
    some = replace(everyone, keys=everyone.keys[:: plan.many // plan.licenses])
    for _ in range(plan.rounds):
        for (stage, node), vendor, samples in (
            (small, None, found.few),
            (large, some, found.many),
            (large, everyone, found.all),
        ):
            samples.append(measure(stage, node, PATH, plan.few, plan.seconds, GOOD, vendor))


def _look_up_us(disk: Path, vendor: Vendor, count: int, batch: int) -> float:
    """The median of a look-up of random licenses, read in batches as a node does, in this process: microseconds."""
    keys = random.choices(vendor.keys, k=count)
    asks = [LicenseQuery(key_claim(key), fingerprint_of(key)) for key in keys]
    snapshot = Snapshot(disk / SNAPSHOT_NAME, reading=True)
    try:
        batches = (asks[start : start + batch] for start in range(0, count, batch))
        return statistics.median(_timed(snapshot, each) / len(each) for each in batches) * 1e6
    finally:
        snapshot.close()


def _timed(snapshot: Snapshot, asks: list[LicenseQuery]) -> float:
    began = time.perf_counter()
    known = snapshot.look_up(asks)
    took = time.perf_counter() - began
    if not all(answer.holding for answer in known):
        raise RuntimeError("a license is not in the copy")
    return took
