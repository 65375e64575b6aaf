"""The attackers of the chaos runs do to a node what they say, and its other customers do not notice."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from api.ledger.database import Database
from tests.chaos.cluster.attackers import KINDS, Plan, answers_of
from tests.e2e.test_unread_exports import check, fill
from tests.support.nodes import ADMIN_TOKEN, API_KEY, SHARED_SECRET, environment, sell
from tests.support.processes import ROOT, ServerProcess, until

_ATTACKED_S = 5.0
#: What each kind is answered where it reaches a node as it should, but for heads: these are ended after ten seconds.
_REACHED = {"writer": "200", "exports": "200", "docs": "200", "unknown": "200"}


@pytest.mark.skipif(sys.platform != "linux", reason="each kind has an address of its own, of all of 127.0.0.0/8")
def test_every_kind_of_attack_reaches_the_node_and_no_other_customer_waits_in_vain(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    env = environment(url, tmp_path, WEB_CONCURRENCY="2")
    with ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as server, contextlib.ExitStack() as stack:
        until(lambda: server.answers("/readyz"), "a node that is ready", 60)
        database = stack.enter_context(contextlib.closing(Database(url)))
        fill(database)
        attacked, customer = sell(database, {"max_machines": 1, "moves_per_30d": None}), sell(database)
        plan = {"ports": [server.port], "api_key": API_KEY, "secret": SHARED_SECRET, "admin_token": ADMIN_TOKEN}
        path = tmp_path / "attackers.json"
        path.write_text(json.dumps({**plan, "key": attacked.key}), encoding="utf-8")
        assert Plan.read(path).kinds == KINDS
        command = [sys.executable, "-m", "tests.chaos.cluster.attackers", str(path)]
        codes: Counter[str] = Counter()

        def answers() -> dict[str, dict[str, int]]:
            codes[check(server, customer)] += 1
            said: dict[str, dict[str, int]] = (
                json.loads(answers_of(path).read_bytes()) if answers_of(path).exists() else {}
            )
            return said

        def all_are_reached() -> bool:
            said = answers()
            return bool(said) and all(said[kind].get(status) for kind, status in _REACHED.items())

        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT) as attackers:
            until(all_are_reached, "each kind of attack", 120)
            end = time.monotonic() + _ATTACKED_S
            while time.monotonic() < end:
                answers()
            attackers.communicate("", 60)
    assert set(codes) == {"VALID"}
    assert attackers.returncode == 0
