"""One node's way to the database, over one link or, where its URL names two hosts, over two.

A fault of the network meets all of it. A server that is added, moved to or dropped is met by the links that lead there.
"""

from __future__ import annotations

import threading

from tests.chaos.cluster.links import Link


class Route:
    """`links` in the order of the URL's hosts; the first leads to the database, a second refuses until it is needed.

    Its methods may be called by any thread.
    """

    def __init__(self, *links: Link) -> None:
        self._links = links
        self._serving = [links[0]]
        self._refused = False
        self._lock = threading.Lock()
        for link in links[1:]:
            link.refuse()

    @property
    def hosts(self) -> str:
        """As libpq's URLs name them."""
        return ",".join(f"127.0.0.1:{link.port}" for link in self._links)

    @property
    def is_double(self) -> bool:
        return len(self._links) > 1

    def hold(self, *ways: str) -> None:
        """From now on nothing arrives on these ways, and nobody is told."""
        for link in self._links:
            link.hold(*ways)

    def slow(self, delay_s: float) -> None:
        for link in self._links:
            link.slow(delay_s)

    def refuse(self) -> None:
        """From now on there is nobody at the other end; open connections are reset."""
        with self._lock:
            self._refused = True
            for link in self._serving:
                link.refuse()

    def reset(self) -> None:
        for link in self._serving:
            link.reset()

    def heal(self) -> None:
        """The network is well again; a host that has no server is still refused."""
        with self._lock:
            self._refused = False
            for link in self._links:
                link.release()
            for link in self._serving:
                link.heal()

    def add(self, port: int) -> None:
        """A second server is there at `port`: the URL's other host, where it names two."""
        with self._lock:
            for link in self._links:
                if link not in self._serving:
                    link.target = port
                    self._serve(link)

    def move(self, port: int) -> None:
        """The server that takes writes is now at `port`: a single address moves, open connections stay."""
        if self.is_double:
            return
        (link,) = self._links
        with self._lock:
            link.target = port
            if link not in self._serving:
                self._serve(link)

    def drop(self, port: int) -> None:
        """The server at `port` is gone for good."""
        with self._lock:
            for link in [link for link in self._serving if link.target == port]:
                self._serving.remove(link)
                link.refuse()

    def _serve(self, link: Link) -> None:
        self._serving.append(link)
        if not self._refused:
            link.listen()
