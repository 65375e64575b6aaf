"""The vendor's command line in the test's own process: at nodes within the process, or at servers over HTTP."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from license_admin.cli import main
from license_admin.session import Start
from license_admin.transport import AdminTransport
from license_client.transport import Reply, TransportFailed
from tests.support.nodes import ADMIN_TOKEN, Node

#: Answers a call in place of a node: a reply, or `TransportFailed` that it raises.
Answer = Callable[[str, str], Reply]


@dataclass
class InProcess:
    """A transport whose servers are nodes of this process, by their URLs, or functions that answer for one."""

    servers: Mapping[str, Node | Answer]
    #: The method and target of each call, by server, in their order.
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    #: The `Idempotency-Key` of each call that had one.
    keys: list[str] = field(default_factory=list)

    def request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float, limit: int
    ) -> Reply:
        server, target = _split(url)
        self.calls.append((server, method, target))
        if "Idempotency-Key" in headers:
            self.keys.append(headers["Idempotency-Key"])
        asked = self.servers[server]
        if not isinstance(asked, Node):
            return asked(method, target)
        response = asked.http.open(target, method=method, data=body, headers=dict(headers))
        assert len(response.data) <= limit
        return Reply(response.status_code, response.data)

    def download(self, url: str, headers: Mapping[str, str], timeout: float, sink: Callable[[bytes], None]) -> Reply:
        reply = self.request("GET", url, None, headers, timeout, 1 << 30)
        if reply.status != 200:
            return reply
        sink(reply.body)
        return Reply(200, b"")

    def close(self) -> None:
        pass


def refusing(reason: str = "refused") -> Answer:
    """A server that nobody reaches."""

    def answer(method: str, target: str) -> Reply:
        raise TransportFailed(reason)

    return answer


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


class Vendor:
    """Runs `license-admin` with these servers, this token and a folder of its own for what it keeps."""

    def __init__(
        self,
        servers: list[str],
        folder: Path,
        token: str = ADMIN_TOKEN,
        transport: AdminTransport | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.servers = servers
        self.folder = folder
        self.transport = transport
        self.encoding = encoding
        self.environ = {"LICENSE_SERVERS": ",".join(servers), "LICENSE_ADMIN_TOKEN": token}

    def run(self, *arguments: str, start: Start | None = None) -> Done:
        """One command to its end, whatever its exit status."""
        start = start or Start(environ=self.environ, transport=self.transport)
        out, err = (io.TextIOWrapper(io.BytesIO(), self.encoding, newline="") for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(arguments), start)
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(self.encoding))
        return Done(status, *texts)

    def ok(self, *arguments: str) -> str:
        """What a command prints that succeeds."""
        done = self.run(*arguments)
        assert done.status == 0, done
        return done.out

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, status: int, *arguments: str) -> str:
        """What a command says on stderr that ends with `status`."""
        done = self.run(*arguments)
        assert done.status == status, done
        return done.err


def sold(vendor: Vendor, **more: str) -> dict[str, Any]:
    """A license of a new policy."""
    code = f"p-{uuid.uuid4().hex[:12]}"
    vendor.ok("products", "create", "--code", code, "--name", "An editor")
    made = vendor.json(
        "policies", "create", "--product", code, "--name", f"yearly {code}", "--duration-days", "365", "--floating"
    )
    options = [text for name, value in more.items() for text in (f"--{name.replace('_', '-')}", value)]
    return dict(vendor.json("licenses", "create", "--policy", made["name"], *options))


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def _split(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    host, slash, target = rest.partition("/")
    return f"{scheme}://{host}", slash + target
