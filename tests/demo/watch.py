"""Looks at the nodes from outside, all the time, and keeps what was seen last: never waiting for one that is silent."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Self

import requests

from tests.chaos.cluster.history import History, now
from tests.chaos.cluster.site import Host, Site

_EVERY_S = 0.25
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """One node: the part it says it plays, `down` where nobody is at its port, `silent` where it does not answer."""

    id: str
    role: str
    state: str = ""
    epoch: int = 0
    queue: int = 0
    ledger: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """The clients so far: checks answered, not answered, and per second just now."""

    answered: int
    failed: int
    rate: float


class Watch:
    """One thread for each node. A context manager."""

    def __init__(self, cluster: Site, history: History) -> None:
        self._cluster, self._history = cluster, history
        self._end = threading.Event()
        self.nodes = {host.id: SnapshotRecord(host.id, "down") for host in cluster.hosts}
        self._threads = [threading.Thread(target=self._loop, args=(host,), daemon=True) for host in cluster.hosts]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(10)

    def tally(self) -> Tally:
        with self._history.lock:
            checks = list(self._history.checks)
        answered = sum(check.answered for check in checks)
        recent = sum(check.answered and check.ended > now() - 2.0 for check in checks[-1000:])
        return Tally(answered, len(checks) - answered, recent / 2.0)

    def _loop(self, host: Host) -> None:
        while not self._end.wait(_EVERY_S):
            self.nodes[host.id] = self._look(host)

    def _look(self, host: Host) -> SnapshotRecord:
        headers = {"Authorization": f"Bearer {self._cluster.secrets['ADMIN_TOKEN']}"}
        url = f"http://127.0.0.1:{host.front.port}/stats"
        try:
            response = requests.get(url, headers=headers, timeout=_PATIENCE_S)
            told = response.json()
            node = told["node"]
        except requests.Timeout:
            return SnapshotRecord(host.id, "silent")
        except (requests.RequestException, ValueError, KeyError):
            return SnapshotRecord(host.id, "down")
        pending = told["sync"]["queue"]["pending"]
        return SnapshotRecord(host.id, node["role"], node["state"], node["epoch"], pending, node["ledger"])
