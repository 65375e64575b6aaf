"""The attackers of a run as a load: the license that is theirs, and the program that they run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import insert, select, update

from api.ledger import tables
from tests.chaos.cluster.attackers import KINDS, answers_of
from tests.chaos.cluster.history import Attack, History, now
from tests.chaos.cluster.site import Site
from tests.support.nodes import Sold, sell
from tests.support.processes import ROOT

#: Machines without a seat that the attacked license has behind it from the start.
DEAD = 20_000
#: A log that no buffer on the way to a reader holds.
_LOGGED = 40_000
_FOLLOW_S, _END_S = 0.3, 30.0
#: So many events of one license may wait in a queue at any moment while it is written to all the time.
_QUEUED = 1_000
#: What each kind is answered where it reached a node as it should.
_REACHED = {"writer": "200", "docs": "200", "unknown": "200", "exports": "200", "heads": "ended"}


class Attackers:
    """A `Load`: from `start` to `stop` every kind of attack goes on at once, from a process of its own."""

    def __init__(self, site: Site, history: History, kinds: Sequence[str] = KINDS) -> None:
        """Makes what they have; before the nodes start. `kinds`: of attack."""
        self._site, self._history, self._kinds = site, history, kinds
        # Of a policy from before there was a limit of moves.
        self._sold = sell(site.database, {"max_machines": 1, "moves_per_30d": None})
        _leave_behind(site, self._sold)
        self._plan = site.folder / "attackers.json"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._process: subprocess.Popen[str]

    def start(self) -> None:
        self._write_plan()
        self._site.tolerated = _QUEUED
        self._history.attack = Attack(began=now())
        command = [sys.executable, "-m", "tests.chaos.cluster.attackers", str(self._plan)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT)
        self._thread.start()

    def stop(self) -> list[str]:
        self._end.set()
        self._thread.join(10)
        attack = self._history.attack
        assert attack is not None
        attack.ended = now()
        try:
            self._process.communicate("", _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return ["the attackers do not end"]
        finally:
            self._site.tolerated = 0
        if self._process.returncode != 0:
            return [f"the attackers failed with status {self._process.returncode}"]
        attack.answers = json.loads(answers_of(self._plan).read_bytes())
        unmet = [kind for kind in self._kinds if not attack.answers[kind].get(_REACHED[kind])]
        return [f"the attack {kind} reached no node: {attack.answers[kind]}" for kind in unmet]

    def _follow(self) -> None:
        while not self._end.wait(_FOLLOW_S):
            self._write_plan()

    def _write_plan(self) -> None:
        secrets = self._site.secrets
        plan = {
            "ports": [host.member.server.port for host in self._site.hosts],
            "api_key": secrets["API_KEY"],
            "secret": secrets["SHARED_SECRET"],
            "admin_token": secrets["ADMIN_TOKEN"],
            "key": self._sold.key,
            "kinds": self._kinds,
        }
        _replace(self._plan, json.dumps(plan))


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _leave_behind(site: Site, sold: Sold) -> None:
    """The rows of machines that came and went, and a long log."""
    at = time.time()
    gone = {"license_id": sold.id, "active": False, "created_at": 0, "seat_at": at}
    old = {"type": "license.renewed", "node": "other", "instance": "other", "epoch": 0, "mode": "normal", "data": "{}"}
    at_once = {**old, "license_id": sold.id, "occurred_at": at, "recorded_at": at}
    with site.database.writing() as connection:
        connection.execute(
            insert(tables.machines),
            [{**gone, "id": str(uuid.uuid4()), "fingerprint": f"gone-{i}"} for i in range(DEAD)],
        )
        last = connection.execute(select(tables.log_head.c.seq)).scalar_one()
        events = [{**at_once, "seq": last + i, "event_id": str(uuid.uuid4())} for i in range(1, _LOGGED + 1)]
        connection.execute(insert(tables.events), events)
        connection.execute(update(tables.log_head).values(seq=last + _LOGGED))
