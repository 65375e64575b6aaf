"""Mistakes in what the simulation runs, each a small patch to a copy: it must break a promise, and say which.

The first eight are those of `tests/chaos/test_mutants.py`; the one there with a session's advisory lock behind a pooler
needs a Postgres and a pooler, and nothing here runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.test_mutants import MUTANTS as KNOWN

ROOT = Path(__file__).resolve().parents[3]
_COPIED = ("api", "failover", "tests/chaos")
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")
_MODEL = "tests/chaos/simulation"
_STEPS = 1_500_000


@dataclass(frozen=True)
class Mutant:
    """One mistake: (file, what is there, what takes its place), and the promises one of which it must break."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    rules: tuple[str, ...]
    flags: tuple[str, ...] = ()
    #: One with which the mistake shows soon.
    seed: str = "7"


_RULES_OF_KNOWN: dict[str, tuple[Any, ...]] = {
    "the acquire compares EXCLUDED, which is always true": (("who believes to lead does",), ("--sql",)),
    "a timeout equal to the renew interval is taken": (
        ("nobody loses the lease for nothing", "the primary leads in the end"),
        (),
    ),
    "a resigning leader elects itself again": (("who resigned does not come back",), (), "3"),
    "a leader stays one after an error": (("who believes to lead does",), ()),
    "a process is known by its host's name": (("one holder per epoch", "one leader"), ()),
    "resigning deletes the row, and the epoch begins again": (("epochs rise",), ("--sql",), "9"),
    "an age below zero is fresh": (("the lease goes to the living", "the primary leads in the end"), (), "11"),
    "a lease is judged by its stored time alone": (
        ("who believes to lead does", "the primary leads in the end", "every queue is replayed in the end"),
        (),
    ),
}


def _known() -> list[Mutant]:
    return [
        Mutant(
            one.name,
            tuple((f"failover/{file}", there, instead) for file, there, instead in one.changes),
            *_RULES_OF_KNOWN[one.name],
        )
        for one in KNOWN
        if one.name in _RULES_OF_KNOWN
    ]


OWN = [
    Mutant(
        "a replay acknowledges before it has committed",
        (
            (
                "failover/replay.py",
                "        try:\n            self._handler(self._queue.origin, batch)\n",
                "        try:\n            self._queue.acknowledge([queued.position for queued in batch])\n"
                "            self._handler(self._queue.origin, batch)\n",
            ),
        ),
        ("nothing answered is lost",),
    ),
    Mutant(
        "a replay does not look whether an event is in the log",
        (
            (
                "api/supervisor/replay.py",
                "        if recorded is not None:\n",
                "        if recorded is not None and not recorded:\n",
            ),
        ),
        ("nothing is given up", "every queue is replayed in the end"),
    ),
    Mutant(
        "tries spent on an environment error",
        (("failover/proof.py", "    return isinstance(error, Doubted) and kind in taken", "    return True"),),
        ("nothing is given up",),
    ),
    Mutant(
        "a usage that is replayed counts as one, whatever it was",
        (("api/licensing/merge.py", "license.uses + past.call.increment,", "license.uses + 1,"),),
        ("merged as designed",),
    ),
    Mutant(
        "an older check-in that is replayed takes the place of a newer one",
        (("api/licensing/merge.py", "at = max(past.at, license.checked_in_at or 0.0)", "at = past.at"),),
        ("merged as designed",),
    ),
    Mutant(
        "the last to be replayed wins, and not the last to happen",
        (
            (
                "api/licensing/merge.py",
                "    return moved if moved <= past.latest else min(machine.created_at, past.at)",
                "    return 0.0",
            ),
        ),
        ("merged as designed",),
        seed="8",
    ),
    Mutant(
        "a node that is cut off denies a key that it does not know",
        (
            (
                "api/checks/unit_of_work.py",
                'return LedgerUnavailable("a key that this node does not know")',
                "verdict = decide(operation.call, None, as_of)\n"
                '            return replace(self._outcome(operation, verdict, as_of), durability="queue")',
            ),
        ),
        ("nobody is denied who should not be",),
    ),
    Mutant(
        "a node that is cut off denies what only the ledger knows",
        (("api/licensing/certain.py", "    return verdict.code in _CERTAIN", "    return True"),),
        ("nobody is denied who should not be",),
    ),
    Mutant(
        "what comes after queued events of its license does not go behind them",
        (
            (
                "api/checks/recorder.py",
                "if self._breaker.may_hold_queued and self._isolated",
                "if False and self._isolated",
            ),
        ),
        ("in order per origin",),
    ),
    Mutant(
        "a queue that was empty while something was on its way there counts as drained",
        (
            (
                "api/checks/isolated.py",
                "would let later calls overtake these.\n            self._breaker.will_queue()\n",
                "would let later calls overtake these.\n",
            ),
        ),
        ("in order per origin",),
        seed="9",
    ),
    Mutant(
        "the queue gives its rows in another order",
        (
            (
                "failover/queue.py",
                "WHERE state = 'pending' AND position > ? ORDER BY position LIMIT ?",
                "WHERE state = 'pending' AND position > ? ORDER BY position DESC LIMIT ?",
            ),
        ),
        ("in order per origin",),
        ("--files",),
    ),
    Mutant(
        "a lease that a restore brought back is taken up again",
        (("failover/decide.py", " and o.lease.epoch >= o.epoch_seen", ""),),
        ("no epoch is used again",),
        seed="8",
    ),
    Mutant(
        "the fence lets everybody through",
        (
            (
                "failover/memory.py",
                '                raise NotLeading(f"epoch {epoch} is not held by {me.node}")',
                "                pass",
            ),
        ),
        ("no stale leader's effect commits",),
    ),
    Mutant(
        "a follower does not look whether the ledger is still the one it copied",
        (
            (
                f"{_MODEL}/follower.py",
                "(copy.ledger_id, copy.generation) != (head.ledger_id, head.generation) or copy.seq > head.seq",
                "False",
            ),
            (f"{_MODEL}/follower.py", "copy.event_id is None or copy.event_id == head.at_cursor", "True"),
        ),
        ("followers notice another ledger", "a copy is the ledger in the end"),
    ),
]


def _run(folder: Path, mutant: Mutant | None) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"}
    flags = () if mutant is None else mutant.flags
    seed, steps = ("7", 20_000) if mutant is None else (mutant.seed, _STEPS)
    command = [sys.executable, "-m", "tests.chaos", "--first", "--seed", seed, "--steps", str(steps), *flags]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of all that the simulation runs."""
    for name in _COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    shutil.copy(ROOT / "tests/__init__.py", tmp_path / "tests/__init__.py")
    return tmp_path


@pytest.mark.slow
def test_without_a_mistake_no_promise_is_broken(folder: Path) -> None:
    done = _run(folder, None)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [*_known(), *OWN], ids=lambda mutant: mutant.name)
def test_the_mistake_breaks_a_promise(mutant: Mutant, folder: Path) -> None:
    for name, right, wrong in mutant.changes:
        path = folder / name
        source = path.read_text()
        assert source.count(right) == 1, f"{name} no longer has what this mistake replaces"
        path.write_text(source.replace(right, wrong))
    done = _run(folder, mutant)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = next((line for line in done.stdout.splitlines() if line.startswith("BROKEN: ")), done.stderr)
    assert broken.removeprefix("BROKEN: ").startswith(mutant.rules), broken
