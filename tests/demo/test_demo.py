"""The demo is a test: its short form ends well, and says so, without a terminal."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.processes import ROOT
from tests.support.programs import PostgresUnavailable, find_programs

_DEADLINE_S = 600


@pytest.mark.slow
def test_the_short_demo_tells_its_story_and_ends_with_a_clean_tally() -> None:
    try:
        find_programs()
    except PostgresUnavailable as error:
        pytest.skip(f"POSTGRES IS MISSING: {error}")
    command = [sys.executable, "-m", "tests.demo", "--fast"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    tally = dict(re.findall(r"^ +([a-z ]+)  (\d+)", done.stdout, re.MULTILINE))
    assert {name: tally[name] for name in ("not answered", "denied wrongly", "lost", "doubled")} == {
        "not answered": "0",
        "denied wrongly": "0",
        "lost": "0",
        "doubled": "0",
    }
    assert int(tally["checks answered"]) > 200
    assert int(tally["answered without the database"]) > 0
    for said in ("node-1: primary", "node-1: down", "node-2: backup", ": isolated", "node-1: silent"):
        assert said in done.stdout, done.stdout
