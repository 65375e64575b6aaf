"""Mistakes, most of them shipped by others, each a small patch to a copy of `failover/`: the tests must catch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEASE = "tests/contract/test_failover_lease.py"
FENCE = "tests/contract/test_failover_fence.py"
UNIT = "tests/unit/failover"
_NEEDED = ("tests/__init__.py", "tests/unit/__init__.py", "tests/conftest.py", "tests/support", "tests/contract", UNIT)
_LINKED = ("api", "migrations")
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(frozen=True)
class Mutant:
    """One mistake: what is replaced in which file, and the tests that are to fail."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


MUTANTS = [
    Mutant(
        "the acquire compares EXCLUDED, which is always true",
        (("sql.py", "AND lease.expires_at @over", "AND excluded.expires_at > @now"),),
        (LEASE,),
    ),
    Mutant(
        "a timeout equal to the renew interval is taken",
        (
            (
                "config.py",
                "self.trust >= 2 * self.heartbeat_interval",
                "self.heartbeat_timeout >= self.heartbeat_interval",
            ),
        ),
        (f"{UNIT}/test_config.py",),
    ),
    Mutant(
        "a resigning leader elects itself again",
        (
            ("decide.py", "return o.stop_requested\n", "return o.stop_requested and not _is_free(o, c)\n"),
            ("decide.py", "    Rule(frozenset({State.STOPPING}), _always, State.STOPPING),\n", ""),
        ),
        (f"{UNIT}/test_decide.py", f"{UNIT}/test_elector.py"),
    ),
    Mutant(
        "a leader stays one after an error",
        (("lease.py", "return until is not None and self._monotonic() < until", "return until is not None"),),
        (f"{UNIT}/test_elector.py",),
    ),
    Mutant(
        "a process is known by its host's name",
        (("model.py", "return cls(str(uuid.uuid4()), node, rank)", "return cls(node, node, rank)"),),
        (f"{UNIT}/test_elector.py",),
    ),
    Mutant(
        "resigning deletes the row, and the epoch begins again",
        (
            (
                "sql.py",
                "UPDATE lease SET acquired_at = @now, expires_at = 0\n",
                "DELETE FROM lease\n",
            ),
        ),
        (LEASE,),
    ),
    Mutant(
        "a session's advisory lock says who leads, behind a pooler",
        (
            (
                "sql.py",
                "WHERE lease.epoch = :epoch_read AND lease.expires_at @over",
                "WHERE :epoch_read = lease.epoch",
            ),
            (
                "lease.py",
                "            if free is not None:\n                changed",
                '            if not connection.exec_driver_sql("SELECT pg_try_advisory_lock(1)").scalar():\n'
                "                return None\n"
                "            if free is not None:\n                changed",
            ),
        ),
        (f"{FENCE}::test_behind_a_transaction_pooler_one_of_two_leads",),
    ),
    Mutant(
        "an age below zero is fresh",
        (
            ("liveness.py", 'at = now - beat.age_s if beat.age_s >= 0.0 else float("-inf")', "at = now - beat.age_s"),
            ("heartbeat.py", "return 0.0 <= self.age_s <= timeout", "return self.age_s <= timeout"),
        ),
        (f"{UNIT}/test_liveness.py", "tests/contract/test_failover_heartbeats.py"),
    ),
    Mutant(
        "a lease is judged by its stored time alone",
        (
            (
                "liveness.py",
                "return min(unchanged_until, answered + lease.expires_in) if self._is_steady else unchanged_until",
                "return answered + lease.expires_in",
            ),
            (
                "liveness.py",
                "self._free_at = ends_at if self._free_at is None else min(self._free_at, ends_at)",
                "self._free_at = ends_at",
            ),
        ),
        (f"{UNIT}/test_liveness.py", f"{UNIT}/test_elector_clocks.py"),
    ),
]


def _copy(folder: Path) -> None:
    shutil.copytree(ROOT / "failover", folder / "failover", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*_NEEDED, "pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)


def _run(folder: Path, tests: tuple[str, ...], postgres: str) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environ |= {"TEST_DATABASE_URL": postgres, "PYTHONDONTWRITEBYTECODE": "1"}
    # Memory and SQLite tell most of them apart, in a fraction of the time that a database for each mistake takes.
    quick = ("-q", "-x", "-p", "no:cacheprovider", "-k", "not postgres")
    command = [sys.executable, "-m", "pytest", *quick, *tests]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_without_a_mistake_the_same_tests_pass(tmp_path: Path, postgres_server: dict[str, str]) -> None:
    _copy(tmp_path)
    tests = tuple(dict.fromkeys(test for mutant in MUTANTS for test in mutant.tests))
    done = _run(tmp_path, tests, postgres_server["postgres_url"])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mistake_is_caught(mutant: Mutant, tmp_path: Path, postgres_server: dict[str, str]) -> None:
    _copy(tmp_path)
    for name, right, wrong in mutant.changes:
        path = tmp_path / "failover" / name
        source = path.read_text()
        assert source.count(right) == 1, f"{name} no longer has what this mistake replaces"
        path.write_text(source.replace(right, wrong))
    done = _run(tmp_path, mutant.tests, postgres_server["postgres_url"])
    # 1: tests ran and at least one failed; anything else is no verdict about the mistake.
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed" in done.stdout
    assert " error" not in done.stdout.splitlines()[-1]
