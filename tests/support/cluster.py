"""Real nodes that share one Postgres, for tests: started, asked, commanded, and watched through the ledger."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import requests
from sqlalchemy import select

from api.config.secret_files import generate_secrets
from api.config.settings import Settings
from api.ledger import tables
from api.ledger.database import Database
from tests.support.nodes import Sold, rows, sell, signed
from tests.support.processes import ROOT, ServerProcess, free_port, is_running, until

Json = dict[str, Any]

_START_S = 90.0
#: By how much one worker may learn later than another what the supervisor says; the rest is for noisy machines.
WORKERS_AGREE_S = 0.1 + 0.4

#: What a client says of a node that runs and is well, on a machine that is too busy for the node or for its ledger.
TOO_BUSY = frozenset({"timeout", "status 503 LEDGER_UNAVAILABLE", "status 503 OVERLOADED"})


class Member:
    """One node: its server, and a client and an admin of it."""

    def __init__(self, url: str, folder: Path, secrets: Json, rank: int, **more: str) -> None:
        port = free_port()
        self.id = f"node-{rank}"
        self.rank = rank
        self.folder = folder
        self._secrets = secrets
        named = {"NODE_ID": self.id, "NODE_RANK": str(rank), "NODE_URL": f"http://127.0.0.1:{port}"}
        self.env = {"DATABASE_URL": url, "DATA_DIR": str(folder), "FAILBACK_DELAY": "3", **secrets, **named, **more}
        self.server = ServerProcess.python("app.py", env=self.env, port=port, cwd=ROOT / "api")

    def ready(self) -> Member:
        """This node, as soon as each of its workers gives verdicts: one may be ready before the other."""
        self.server.wait_until_answers("/readyz", _START_S)
        workers = Settings.from_env(self.env).workers
        until(lambda: self.server.output().count('"serving"') >= workers, "all workers", _START_S)
        return self

    def validate(self, sold: Sold) -> requests.Response:
        path, body = "/v1/validate", json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex}).encode()
        return requests.post(self.server.url + path, data=body, headers=self.headers(path, body), timeout=10)

    def headers(self, path: str, body: bytes) -> dict[str, str]:
        own = signed("POST", path, body, secrets=(self._secrets["SHARED_SECRET"],))
        return {**own, "X-API-Key": self._secrets["API_KEY"]}

    def stats(self) -> Json:
        response = requests.get(self.server.url + "/stats", headers=self._bearer(), timeout=10)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def admin(self, kind: str, fields: Json) -> Json:
        """Makes a product, policy or license (`kind` in the plural)."""
        response = requests.post(f"{self.server.url}/v1/{kind}", json=fields, headers=self._bearer(), timeout=10)
        assert response.status_code == 201, response.text
        return dict(response.json())

    def command(self, action: str, to: str) -> tuple[int, Json]:
        url = f"{self.server.url}/v1/nodes/actions/{action}"
        response = requests.post(url, json={"to": to}, headers=self._bearer(), timeout=10)
        return response.status_code, response.json()

    def moves(self, action: str, to: str) -> Json:
        """`command`, asked again for as long as `to` has not said that it may lead; gives what it answers then."""

        def answered() -> Json | None:
            status, body = self.command(action, to)
            return body if status == 200 else None

        answer = until(answered, f"{action} to {to}")
        assert answer is not None
        return answer

    @property
    def part(self) -> tuple[str, int]:
        """The role it says it plays, and the epoch."""
        node = self.stats()["node"]
        return node["role"], node["epoch"]

    def supervisor(self) -> psutil.Process:
        """The master's one child that has no children: Granian has its workers."""
        alone = [each for each in self.server.process.children() if is_running(each) and not each.children()]
        return alone[0] if len(alone) == 1 else until(self.supervisor, "one supervisor")

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._secrets['ADMIN_TOKEN']}"}


class Site:
    """A database, and the nodes that share it and its secrets."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.database = Database(url)
        self._folder = folder
        self._secrets = generate_secrets().settings()
        self._members: list[Member] = []

    def node(self, rank: int, *, copy: str = "", **more: str) -> Member:
        """A node that is just being started; `copy` gives it a disk of its own."""
        self._members.append(Member(self.url, self._folder / f"{rank}{copy}", self._secrets, rank, **more))
        return self._members[-1]

    def two(self, **more: str) -> tuple[Member, Member]:
        """Rank 1, which leads in epoch 1, and rank 2, which stands by; started in the same second."""
        one, two = self.node(1, **more), self.node(2, **more)
        one.ready(), two.ready()
        plays((one, "primary", 1), (two, "standby", 1))
        return one, two

    def sell(self) -> Sold:
        return sell(self.database)

    def bought(self, member: Member, *others: Member) -> Sold:
        """A license that an admin makes at `member`, once it is in its copy of the ledger and in those of `others`."""
        code = f"p-{uuid.uuid4().hex[:8]}"
        member.admin("products", {"code": code, "name": code})
        policy = member.admin("policies", {"product": code, "name": "tests", "floating": True})
        license = member.admin("licenses", {"policy": policy["id"]})
        (head,) = rows(self.database, tables.log_head)
        for each in (member, *others):
            until(lambda m=each: (m.stats()["node"]["snapshot"]["seq"] or 0) >= head["seq"], "it is copied")  # type: ignore[misc]
        return Sold(license["id"], license["key"])

    def modes(self) -> Counter[str]:
        return Counter(row["mode"] for row in rows(self.database, tables.events) if row["type"] == "validate")

    def failovers(self) -> list[Json]:
        """Oldest first."""
        return sorted(rows(self.database, tables.failovers), key=lambda row: row["epoch"])

    def close(self) -> None:
        for member in self._members:
            member.server.kill_tree()
        self.database.close()


def plays(*expected: tuple[Member, str, int], deadline: float = 30.0) -> None:
    """Waits until each member says that it plays this role in this epoch, whichever of its workers is asked."""
    until(lambda: all(member.part == (role, epoch) for member, role, epoch in expected), f"{expected}", deadline)
    time.sleep(WORKERS_AGREE_S)


class Asking:
    """Validates at `member` all the time while a test does its worst, and keeps what it was told."""

    def __init__(self, member: Member, sold: Sold) -> None:
        self._member, self._sold = member, sold
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.told: Counter[str] = Counter()
        #: (role, epoch) in the order in which they were first said.
        self.parts: list[tuple[str, int]] = []
        self.longest = 0.0

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)

    def _loop(self) -> None:
        while not self._end.wait(0.02):
            began = time.monotonic()
            try:
                response = self._member.validate(self._sold)
                self.told[response.json()["code"]] += 1
            except requests.RequestException as error:
                self.told[type(error).__name__] += 1
                continue
            self.longest = max(self.longest, time.monotonic() - began)
            if response.status_code == 200:
                node = response.json()["node"]
                part = (node["role"], node["epoch"])
                if part not in self.parts:
                    self.parts.append(part)


class Watching:
    """Reads the lease all the time: who held which epoch, in the order of the epochs' first sight."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.held: list[tuple[int, str]] = []

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)
        epochs = [epoch for epoch, _ in self.held]
        assert epochs == sorted(set(epochs)), f"an epoch was shared, or fell: {self.held}"

    def _loop(self) -> None:
        while not self._end.wait(0.02):
            with self._database.reading() as connection:
                row = connection.execute(select(tables.lease.c.epoch, tables.lease.c.holder)).first()
            if row is not None and (not self.held or self.held[-1] != tuple(row)):
                self.held.append((row.epoch, row.holder))
