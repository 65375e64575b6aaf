"""Each host three times over: from a clone to service by its own build and start commands, and how long that took.

`make journeys` runs this; the suite has `test_journeys.py`. Installing packages is what takes the time.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.config.secret_files import generate_secrets
from tests.journeys.deployed import answers, on, sell
from tests.journeys.hosts import HOSTS, Host
from tests.journeys.test_journeys import beating, closing_all
from tests.support.processes import ROOT

#: A vendor has thirty minutes for three hosts, most of which go into their forms.
_LONGEST_S = 600.0


def built(host: Host, folder: Path) -> Path:
    """A clone of this repository in `folder`, and the programs of the virtual environment that `host` makes for it."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    bin = folder / ".venv" / "bin"
    program, *arguments = shlex.split(host.build)
    assert program == "pip"
    subprocess.run([str(bin / program), "--quiet", *arguments], cwd=folder, check=True)
    return bin


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_three_nodes_serve_from_a_clean_clone(host: Host, empty_postgres_url: str, tmp_path: Path) -> None:
    began, secrets = time.monotonic(), generate_secrets().settings()
    with closing_all([]) as members:
        for rank in (1, 2, 3):
            folder = tmp_path / str(rank)
            bin = built(host, folder)
            members.append(on(host, folder, empty_postgres_url, secrets, rank, bin=bin))
        for member in members:
            member.ready()
        beating(members[0], 3)
        sold = sell(members[0])
        assert [answers(member, sold) for member in members] == ["VALID"] * 3
        took = time.monotonic() - began
    print(f"{host.name}: three nodes serve {took:.0f} s after the first clone")
    assert took < _LONGEST_S
