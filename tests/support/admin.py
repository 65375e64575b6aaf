"""An admin of a node in the test's own process: calls with a bearer token, and the problems they meet."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.admin.store import Resources
from tests.support.nodes import ADMIN_TOKEN, Node, node_on

Json = dict[str, Any]


class Admin:
    """Calls `node` with `token`; `product` and `policy` are there from the start."""

    def __init__(self, node: Node, token: str = ADMIN_TOKEN) -> None:
        self.node = node
        self.token = token
        runtime = node.runtime
        self.resources = Resources(runtime.ledger.database, runtime.node, runtime.clock, runtime.state.changes)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """One call; `body` is sent as JSON, bytes as they are."""
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if raw is not None:
            sent = {"Content-Type": "application/json", **sent}
        return self.node.http.open(f"/v1{path}", method=method, data=raw, headers=sent)

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        """The resource that a call answers with."""
        response = self.send(method, path, body, **headers)
        assert response.status_code in (200, 201), response.text
        return dict(json.loads(response.data))

    def problem(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        """The problem that a call answers with, checked for its shape."""
        response = self.send(method, path, body, **headers)
        assert response.content_type == "application/problem+json", response.text
        found = dict(json.loads(response.data))
        assert found["status"] == response.status_code
        assert {"type", "title", "detail", "code", "request_id"} <= found.keys()
        return found

    def product(self, **fields: Any) -> Json:
        return self.ok("POST", "/products", {"code": f"p-{uuid.uuid4().hex[:12]}", "name": "A product", **fields})

    def policy(self, **rules: Any) -> Json:
        """A new policy, of a new product unless `rules` name one; its licenses may be asked about without a machine."""
        product = rules.pop("product", None) or self.product()["code"]
        given = {"product": product, "name": "A policy", "require_fingerprint": False, **rules}
        return self.ok("POST", "/policies", given)

    def license(self, policy: Json | None = None, **fields: Any) -> Json:
        """A new license with its key, under a new policy unless one is given."""
        return self.ok("POST", "/licenses", {"policy": (policy or self.policy())["id"], **fields})

    def events(self, license: Json) -> list[Json]:
        return list(self.ok("GET", f"/events?license={license['id']}&limit=100")["items"])


@contextlib.contextmanager
def admin_on(kind: str, request: pytest.FixtureRequest, folder: Path, **more: str) -> Iterator[Admin]:
    """An admin of a node on a ledger of its own: `kind` is `sqlite` or `postgres`."""
    with node_on(kind, request, folder, **more) as node:
        yield Admin(node)
