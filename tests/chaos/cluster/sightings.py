"""What nodes say is wrong with them (`troubles` on /readyz), looked at all the while."""

from __future__ import annotations

import re
import threading
from typing import Self

import requests

from api.node.troubles import Trouble
from tests.chaos.cluster.history import History, Sighting, now
from tests.chaos.cluster.site import Host, Site

_EVERY_S = 0.5
_PATIENCE_S = 1.0
_FACT = re.compile(r"\\\{.*?\\\}")


class Sightings:
    """A thread for each node. A context manager."""

    def __init__(self, cluster: Site, history: History) -> None:
        self._history = history
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._loop, args=(host,), daemon=True) for host in cluster.hosts]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(10)

    def _loop(self, host: Host) -> None:
        open_ = dict[str, Sighting]()
        while not self._end.wait(_EVERY_S):
            said = _said(host)
            open_ = {sentence: open_.get(sentence) or self._new(host, sentence) for sentence in said}
            for sighting in open_.values():
                sighting.last = now()

    def _new(self, host: Host, sentence: str) -> Sighting:
        sighting = Sighting(node=host.id, sentence=sentence, first=now(), last=now())
        with self._history.lock:
            self._history.sightings.append(sighting)
        return sighting


def _said(host: Host) -> list[str]:
    """Nothing, where the node does not answer."""
    try:
        return [str(each) for each in host.member.server.get("/readyz", _PATIENCE_S).json()["troubles"]]
    except (requests.RequestException, ValueError, KeyError):
        return []


def named(sentence: str) -> str:
    """The trouble whose sentence it is; the sentence itself where it is none's."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(sentence)), sentence)


_PATTERNS = {
    name: re.compile(_FACT.sub(".*", re.escape(trouble.value)), re.DOTALL)
    for name, trouble in Trouble.__members__.items()
}
