"""A program of attackers: what a holder of the shipped secrets and of one key can send, at all nodes at once.

`python -m tests.chaos.cluster.attackers FILE`. The file has the `Plan` as JSON and is read again all the while, for a
node that was started again has another port. It ends with its standard input. What was answered is in a file beside it,
`.answers` in the place of its suffix, all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.nodes import signed

WRITERS, READERS, UNKNOWN_PER_S = 64, 40, 200
_HEADS, _EXPORTS, _ASKERS = 300, 60, 20
_PATIENCE_S, _AGAIN_S, _DRIP_S = 10.0, 0.3, 1.0
#: As long as an export is held that is not read: longer than a node waits for its reader.
_HELD_S = 60.0
#: A reader looks at a page that he has been sent for so long. All of this shares a machine with the nodes.
_LOOKS_S = 0.5
#: A writer's pause between two calls, likewise: together they send 320 a second at most.
_WRITES_S = 0.2
#: Each kind comes from an address of its own, and customers from another: what one address may have is limited.
_ADDRESSES = {
    "writer": "127.0.0.2",
    "heads": "127.0.0.3",
    "exports": "127.0.0.4",
    "docs": "127.0.0.5",
    "unknown": "127.0.0.6",
}
KINDS = tuple(_ADDRESSES)


@dataclass(frozen=True, slots=True)
class Plan:
    """What attackers know. `ports`: the nodes' own; `key`: of the license that is theirs; `kinds`: what they do."""

    ports: tuple[int, ...]
    api_key: str
    secret: str
    admin_token: str
    key: str
    kinds: tuple[str, ...] = KINDS

    @classmethod
    def read(cls, path: Path) -> Plan:
        given = json.loads(path.read_bytes())
        return cls(**{**given, "ports": tuple(given["ports"]), "kinds": tuple(given.get("kinds", KINDS))})


class Attack:
    """All of them. `counts`: by kind, how often what was answered, or what went wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.plan = Plan.read(path)
        self.counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}

    async def run(self) -> None:
        """Until it is cancelled."""
        kinds: dict[str, tuple[int, Callable[[int], Coroutine[Any, Any, None]]]] = {
            "writer": (WRITERS, self._write),
            "heads": (_HEADS, self._drip),
            "exports": (_EXPORTS, self._leave_unread),
            "docs": (READERS, self._read),
            "unknown": (_ASKERS, self._ask),
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            for count, attack in (kinds[kind] for kind in self.plan.kinds):
                for number in range(count):
                    tasks.create_task(attack(number))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_S)
            with contextlib.suppress(ValueError):  # half written
                self.plan = Plan.read(self._path)
            self.tell()

    def tell(self) -> None:
        """Writes what was answered until now, the whole of it at once."""
        new = self._path.with_suffix(".new-answers")
        new.write_text(json.dumps(self.counts), encoding="utf-8")
        new.replace(answers_of(self._path))

    async def _write(self, number: int) -> None:
        """Machines never seen come and go, all on one license."""
        for turn in itertools.count():
            async with self._connection("writer", number + turn) as far:
                for each in itertools.count():
                    act = ("deactivate", "activate", "deactivate", "ping")[each % 4]
                    await far.call(act, self.plan.key, fingerprint=f"dead-{number}-{turn}-{each // 4}")
                    await asyncio.sleep(_WRITES_S)

    async def _ask(self, number: int) -> None:
        """Keys that nobody sold, so many a second by all of them together."""
        loop = asyncio.get_running_loop()
        for turn in itertools.count():
            async with self._connection("unknown", number + turn) as far:
                while True:
                    due = loop.time() + _ASKERS / UNKNOWN_PER_S
                    await far.call("validate", f"UNKNOWN-{uuid.uuid4().hex}")
                    await asyncio.sleep(max(0.0, due - loop.time()))

    async def _read(self, number: int) -> None:
        """The page of documentation, again and again."""
        for turn in itertools.count():
            async with self._connection("docs", number + turn) as far:
                while True:
                    await far.asks(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n")
                    await asyncio.sleep(_LOOKS_S)

    async def _drip(self, number: int) -> None:
        """A head that never ends."""
        for turn in itertools.count():
            async with self._connection("heads", number + turn) as far:
                await far.sends(b"POST /v1/validate HTTP/1.1\r\nHost: x\r\nX-Any: ")
                while not far.is_ended:
                    await asyncio.sleep(_DRIP_S)
                    await far.sends(b"x")
                self.counts["heads"]["ended"] += 1

    async def _leave_unread(self, number: int) -> None:
        """An export of the whole log, of which nothing is read but that it comes."""
        for turn in itertools.count():
            async with self._connection("exports", number + turn, buffer=4096) as far:
                bearer = f"Authorization: Bearer {self.plan.admin_token}\r\n".encode()
                await far.sends(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/csv\r\n" + bearer + b"\r\n")
                async with asyncio.timeout(_PATIENCE_S):
                    status = (await far.reader.readexactly(12))[9:].decode()
                self.counts["exports"][status] += 1
                await asyncio.sleep(_HELD_S if status == "200" else 1.0)

    @contextlib.asynccontextmanager
    async def _connection(self, kind: str, number: int, buffer: int | None = None) -> Any:
        """One to each node in turn. What goes wrong with it ends it, and the next begins a little later."""
        far = None
        try:
            port = self.plan.ports[number % len(self.plan.ports)]
            async with asyncio.timeout(_PATIENCE_S):
                far = await _Far.opened(port, _ADDRESSES[kind], self, kind, buffer)
            yield far
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.counts[kind][type(error).__name__] += 1
        finally:
            if far is not None:
                far.close()
        await asyncio.sleep(_AGAIN_S)


class _Far:
    """One connection to a node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attack: Attack, kind: str) -> None:
        self.reader, self._writer, self._attack, self._kind = reader, writer, attack, kind

    @classmethod
    async def opened(cls, port: int, address: str, attack: Attack, kind: str, buffer: int | None) -> _Far:
        near = socket.socket()
        try:
            if buffer is not None:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            near.setblocking(False)
            near.bind((address, 0))
            await asyncio.get_running_loop().sock_connect(near, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=near, limit=buffer or 65_536)
        except BaseException:
            near.close()
            raise
        return cls(reader, writer, attack, kind)

    @property
    def is_ended(self) -> bool:
        return self.reader.at_eof() or self.reader.exception() is not None

    async def sends(self, raw: bytes) -> None:
        self._writer.write(raw)
        await self._writer.drain()

    async def call(self, act: str, key: str, **fields: str) -> None:
        """A signed call and its whole answer."""
        plan, path = self._attack.plan, f"/v1/{act}"
        body = json.dumps({"key": key, "nonce": uuid.uuid4().hex, **fields}).encode()
        given = {**signed("POST", path, body, secrets=(plan.secret,)), "X-API-Key": plan.api_key}
        lines = "".join(f"{name}: {text}\r\n" for name, text in {**given, "Content-Length": len(body)}.items())
        await self.asks(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + body)

    async def asks(self, raw: bytes) -> None:
        """Raises EOFError, OSError, TimeoutError and (what is no answer) ValueError."""
        async with asyncio.timeout(_PATIENCE_S):
            await self.sends(raw)
            top = await self.reader.readuntil(b"\r\n\r\n")
            sizes = [line for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await self.reader.readexactly(int(sizes[0].partition(b":")[2]) if sizes else 0)
        self._attack.counts[self._kind][top[9:12].decode()] += 1

    def close(self) -> None:
        self._writer.transport.abort()


def answers_of(path: Path) -> Path:
    """The file in which the answers are to what is done by the plan in `path`."""
    return path.with_suffix(".answers")


async def _until_its_end(path: Path) -> None:
    attack = Attack(path)
    running = asyncio.create_task(attack.run())
    ends = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait({running, ends}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    attack.tell()


if __name__ == "__main__":
    asyncio.run(_until_its_end(Path(sys.argv[1])))
