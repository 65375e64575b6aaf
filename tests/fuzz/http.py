"""`make fuzz ARGS="--http"`: requests as bytes, garbled, cut and pipelined, at a node as it is deployed.

No answer may be one that is not documented, no connection may hang, nothing behind a request whose end is in doubt may
be answered, and a check beside it is answered as ever. A license that only hidden calls name has no use in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import requests

from api.config.secret_files import generate_secrets
from api.ledger.database import Database
from tests.fuzz.http_answers import Incomplete, Response, answers, wrong
from tests.fuzz.http_calls import Known
from tests.fuzz.http_cases import Case, case
from tests.support.nodes import license_row, sell
from tests.support.processes import ROOT, ServerProcess

#: Connections at a time.
_AT_ONCE = 32
#: A head has ten seconds, a body ten more; what is much longer is a hang, on a machine that is busy as well.
_DEADLINE_S = 120.0
#: A wild request may be one that waits for more: then its client says that no more will come.
_WILD_S = 1.0
_SHOWN = 20


def fuzz_http(data: Path, cases: int, seed: int, first: int = 0) -> int:
    """`cases` connections from number `first` on; prints each finding. The exit status: 0 where there is none."""
    secrets = generate_secrets().settings()
    url = f"sqlite:///{data}/ledger.db"
    env = {"DATA_DIR": str(data), "DATABASE_URL": url, "RATE_LIMIT": "1000000/minute", "LOG_LEVEL": "ERROR", **secrets}
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(ServerProcess.python("app.py", env=env, cwd=ROOT / "api"))
        node.wait_until_answers("/readyz")
        database = stack.enter_context(contextlib.closing(Database(url)))
        good, untouched = sell(database), sell(database)
        known = Known(secrets["API_KEY"], secrets["SHARED_SECRET"], good.key, untouched.key)
        began = time.monotonic()
        attack = _Attack(node.port, seed, known)
        asyncio.run(attack.run(range(first, first + cases)))
        if not _answers_a_check(node, known):
            attack.found.append("afterwards a check is not answered")
        if license_row(database, untouched)["uses"] or license_row(database, untouched)["last_seen_at"]:
            attack.found.append("a hidden call was carried out")
        if "unexpected error" in node.output() or "a request failed" in node.output():
            attack.found.append(node.output())
    _report(attack, cases, seed, time.monotonic() - began)
    return 1 if attack.found else 0


def _answers_a_check(node: ServerProcess, known: Known) -> bool:
    top, body = known.check("n" * 24)
    fields = dict(line.split(": ", 1) for line in top.decode().split("\r\n")[1:-1])
    answer = requests.post(f"{node.url}/v1/validate", data=body, headers=fields, timeout=30)
    return answer.status_code == 200 and answer.json()["code"] == "VALID"


def _report(attack: _Attack, cases: int, seed: int, took: float) -> None:
    for line in attack.found[:_SHOWN]:
        print(line)
    if len(attack.found) > _SHOWN:
        print(f"and {len(attack.found) - _SHOWN} more")
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(attack.statuses.items()))
    print(f"{cases} connections in {took:.0f} s with --seed {seed}: answers {statuses}")
    print(f"{len(attack.found)} findings" if attack.found else "nothing found")


class _Attack:
    """All the connections of a run, some at a time. `found`: a line for each that went wrong."""

    def __init__(self, port: int, seed: int, known: Known) -> None:
        self._port, self._seed, self._known = port, seed, known
        self.found: list[str] = []
        self.statuses: Counter[int] = Counter()

    async def run(self, numbers: range) -> None:
        left = iter(numbers)
        await asyncio.gather(*(self._some(left) for _ in range(_AT_ONCE)))

    async def _some(self, left: Iterator[int]) -> None:
        for number in left:
            made = case(self._seed, number, self._known)
            told = await self._one(made)
            if told is not None:
                name = made.steps[made.odd].name
                self.found.append(f"--seed {self._seed} --first {number} --cases 1, {name}: {told}\n  {_shown(made)}")

    async def _one(self, made: Case) -> str | None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                got = await _exchanged(self._port, made)
        except TimeoutError:
            return "it hangs"
        except Incomplete as error:
            return f"no answer can be read: {error}"
        except ConnectionRefusedError:
            return "no connection can be made"
        self.statuses.update(each.status for each in got)
        return None if made.abandons else wrong(made, got)


def _shown(made: Case) -> str:
    raw = made.steps[made.odd].raw[: made.cut]
    return f"{raw[:600]!r}{'...' if len(raw) > 600 else ''}"


async def _exchanged(port: int, made: Case) -> list[Response]:
    """All answers on one connection, to its end."""
    with await _connected(port) as client:
        if made.cut is None:
            sending = asyncio.create_task(_send(client, b"".join(step.raw for step in made.steps), made.parts))
            received = await _to_the_end(client, patient=not made.steps[made.odd].wild)
            sending.cancel()
            return answers(received, made.steps)
        before = made.steps[: made.odd]
        await _send(client, b"".join(step.raw for step in before), 1)
        received = await _so_many(client, len(before))
        await _send(client, made.steps[made.odd].raw[: made.cut], made.parts)
        if not made.abandons:
            # Only now: a client that has gone is owed no answer.
            _end(client)
            received += await _to_the_end(client, patient=True)
        return answers(received, made.steps)


async def _connected(port: int) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    except BaseException:
        client.close()
        raise
    return client


async def _send(client: socket.socket, raw: bytes, parts: int) -> None:
    """`raw` in so many pieces; as much of it as the other side takes."""
    size = max(1, -(-len(raw) // parts))
    with contextlib.suppress(OSError):
        for at in range(0, len(raw), size):
            await asyncio.get_running_loop().sock_sendall(client, raw[at : at + size])
            await asyncio.sleep(0)


def _end(client: socket.socket) -> None:
    """Nothing more will be sent."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)


async def _so_many(client: socket.socket, count: int) -> bytes:
    """What comes until `count` answers are there, or the connection ends."""
    received = b""
    while count and len(_whole(received)) < count:
        part = await asyncio.get_running_loop().sock_recv(client, 65_536)
        if not part:
            break
        received += part
    return received


def _whole(received: bytes) -> list[Response]:
    with contextlib.suppress(Incomplete):
        return answers(received, ())
    return []


async def _to_the_end(client: socket.socket, *, patient: bool) -> bytes:
    """What comes until the other side ends the connection; without patience it is soon told that no more will come."""
    received, loop = b"", asyncio.get_running_loop()
    with contextlib.suppress(ConnectionResetError):
        while True:
            try:
                part = await asyncio.wait_for(loop.sock_recv(client, 65_536), None if patient else _WILD_S)
            except TimeoutError:
                _end(client)
                patient = True
                continue
            if not part:
                break
            received += part
    return received
