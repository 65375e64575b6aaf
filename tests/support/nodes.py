"""Nodes in the test's own process, licenses to ask them about, and a client that signs and verifies by itself.

The client shares no code with the server: it signs with hmac, and verifies with joserfc besides our own verifier.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from joserfc import jws as joserfc_jws
from joserfc.jwk import KeySet
from sqlalchemy import insert, select, update
from werkzeug.test import TestResponse

from api.app import create_app
from api.config.settings import Settings
from api.ledger import tables
from api.ledger.database import Database
from api.ledger.store import Ledger, open_ledger
from api.node.clock import Clock
from api.signing import Verifier, generate
from tests.support.databases import create_database, drop_database
from tests.support.processes import until

API_KEY, SHARED_SECRET, ADMIN_TOKEN = "api-key-for-tests", "shared-secret-for-tests", "admin-token-for-tests"
PRODUCT = "app"


# -- nodes ----------------------------------------------------------------------------------------------------------


@functools.cache
def signing_key() -> str:
    """One private key in PEM for all nodes of this process and those it starts."""
    return generate().pem()


def environment(url: str, folder: Path, **more: str) -> dict[str, str]:
    """A node's whole environment. Failures are not limited, unless `more` says otherwise, and several processes may
    share one embedded ledger, as nodes do a Postgres.
    """
    secrets = {"API_KEY": API_KEY, "SHARED_SECRET": SHARED_SECRET, "ADMIN_TOKEN": ADMIN_TOKEN}
    quiet = {
        "SINGLE_NODE": "true",
        "RATE_LIMIT": "1000000/minute",
        "WEB_CONCURRENCY": "1",
        "LOG_LEVEL": "ERROR",
        "LEDGER_BUDGET": "2.5",
    }
    return {"DATABASE_URL": url, "DATA_DIR": str(folder), "SIGNING_KEY": signing_key(), **secrets, **quiet, **more}


class Answer(NamedTuple):
    """One answered call. `claims`: the verdict's, verified; `lease`: the offline token's; None where there is none."""

    status: int
    body: dict[str, Any]
    claims: dict[str, Any] | None
    lease: dict[str, Any] | None
    response: TestResponse

    @property
    def code(self) -> str:
        return str(self.body["code"])


class Node:
    """An app and a client of it that knows the secrets."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.runtime = app.extensions["runtime"]
        self.database: Database = self.runtime.ledger.database
        self.http = app.test_client()

    def ready(self) -> Node:
        """This node, as soon as it gives verdicts."""
        until(lambda: self.http.get("/readyz").status_code == 200, "a ready node", 120)
        return self

    def call(self, act: str, key: str, *, request_id: str | None = None, **fields: Any) -> Answer:
        """One signed call; what it answers is verified in full before it is given."""
        nonce = uuid.uuid4().hex
        body = json.dumps({"key": key, "nonce": nonce, **fields}).encode()
        answer = self.send(act, body, request_id=request_id)
        if answer.claims is not None:
            sent_id = answer.claims.get("rid") if request_id is None else request_id
            call: dict[str, Any] = {"act": act, "nonce": nonce, "request_id": sent_id, "body": body, "key": key}
            call["product"] = (
                fields.get("product") if answer.body["license"] is None else answer.body["license"]["product"]
            )
            verifier = Verifier(self.jwks())
            verifier.verify_verdict(
                answer.body["verdict"], **call, fingerprint=fields.get("fingerprint"), now=self.now()
            )
        return answer

    def insist(self, act: str, key: str, *, request_id: str, **fields: Any) -> Answer:
        """`call`, again and again where the node is too busy for it, as clients do."""

        def answered() -> Answer | None:
            answer = self.call(act, key, request_id=request_id, **fields)
            return None if answer.code in ("OVERLOADED", "LEDGER_UNAVAILABLE") else answer

        answer = until(answered, "an answer of a busy node", 120)
        assert answer is not None
        return answer

    def send(
        self, act: str, body: bytes, *, request_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One signed call with a body as it is; `headers` replace or (where empty) take away what it sends."""
        path = f"/v1/{act}"
        sent = {**signed("POST", path, body, request_id=request_id, now=self.now()), **(headers or {})}
        response = self.http.post(path, data=body, headers={name: text for name, text in sent.items() if text})
        return self.read(response)

    def read(self, response: TestResponse) -> Answer:
        """A response taken apart, its tokens verified with joserfc."""
        body = json.loads(response.data)
        verdict = self.opened(body["verdict"], "verdict+jwt") if response.status_code == 200 else None
        lease = self.opened(body["token"], "lease+jwt") if body.get("token") else None
        return Answer(response.status_code, body, verdict, lease, response)

    def jwks(self) -> dict[str, Any]:
        return dict(json.loads(self.http.get("/.well-known/jwks.json").data))

    def opened(self, token: str, typ: str) -> dict[str, Any]:
        """The claims of a token that joserfc verifies with the published keys."""
        opened = joserfc_jws.deserialize_compact(token, KeySet.import_key_set(self.jwks()), ["ES256"])  # type: ignore[arg-type]
        assert opened.headers()["typ"] == typ
        return dict(json.loads(opened.payload))

    def now(self) -> int:
        return int(self.runtime.clock.now())


@contextlib.contextmanager
def running_node(url: str, folder: Path, **more: str) -> Iterator[Node]:
    """A node of its own, ready and knowing who leads (a node alone: itself), stopped afterwards."""
    with starting_node(url, folder, **more) as node:
        node.ready()
        # Its supervisor says so a moment after the lease does: what a test asserts of role, epoch and mode hangs on it.
        until(lambda: node.runtime.node.epoch > 0, "a node that knows who leads", 60)
        yield node


@contextlib.contextmanager
def starting_node(url: str, folder: Path, **more: str) -> Iterator[Node]:
    """A node that need not be ready."""
    node = Node(create_app(Settings.from_env(environment(url, folder, **more))))
    # Tests change rows behind the log's back, which no follower can see; those of the snapshot switch it on again.
    node.runtime.reader.max_age_s = 0.0
    try:
        yield node
    finally:
        node.runtime.stop()


@contextlib.contextmanager
def node_on(kind: str, request: pytest.FixtureRequest, folder: Path, **more: str) -> Iterator[Node]:
    """A ready node on a ledger of its own: `kind` is `sqlite` or `postgres`."""
    with ledger_of(kind, request, folder) as url, running_node(url, folder, **more) as node:
        yield node


def signed(
    method: str,
    path: str,
    body: bytes,
    *,
    secrets: tuple[str, ...] = (SHARED_SECRET,),
    request_id: str | None = None,
    now: float | None = None,
) -> dict[str, str]:
    """The headers of a client's call, signed with each of `secrets`."""
    request_id = request_id or uuid.uuid4().hex
    timestamp = str(int(time.time() if now is None else now))
    text = f"{request_id}.{timestamp}.{method} {path}.".encode() + body
    digests = [hmac.new(secret.encode(), text, hashlib.sha256).digest() for secret in secrets]
    return {
        "Content-Type": "application/json",
        "X-API-Key": API_KEY,
        "X-Request-Id": request_id,
        "X-Timestamp": timestamp,
        "X-Signature": " ".join("v1," + base64.b64encode(digest).decode() for digest in digests),
    }


# -- ledgers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ledger_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """A migrated ledger that lives as long as the caller's fixture does: `kind` is `sqlite` or `postgres`."""
    if kind == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        yield f"sqlite:///{shutil.copy(template, folder / 'protecao.db')}"
        return
    server, template = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_template")
    name = f"{server['postgres_run']}_{uuid.uuid4().hex[:12]}"
    try:
        yield create_database(server["postgres_url"], name, template)
    finally:
        drop_database(server["postgres_url"], name)


@contextlib.contextmanager
def opened_ledger(url: str, *, pool_size: int = 2) -> Iterator[Ledger]:
    """A connection to a ledger of one's own, as another process would have it."""
    ledger = open_ledger(url, str(uuid.uuid4()), Clock(), pool_size=pool_size)
    try:
        yield ledger
    finally:
        ledger.database.close()


# -- licenses -------------------------------------------------------------------------------------------------------


class Sold(NamedTuple):
    """A license, and the key that its customer got."""

    id: str
    key: str

    @property
    def key_hash(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.key.encode()).digest()).decode().rstrip("=")


def sell(database: Database, rules: Mapping[str, Any] | None = None, **columns: Any) -> Sold:
    """A new active license under a policy of its own: floating, without limits, but for what `rules` say."""
    sold, policy = Sold(str(uuid.uuid4()), f"KEY-{uuid.uuid4().hex}"), str(uuid.uuid4())
    rules_json = json.dumps({"floating": True, **(rules or {})})
    row = {"policy": policy, "key_hash": sold.key_hash, "key_hint": sold.key[-4:], "status": "active"}
    with database.writing() as connection:
        if connection.execute(select(tables.products).where(tables.products.c.code == PRODUCT)).first() is None:
            product = {"id": str(uuid.uuid4()), "code": PRODUCT, "name": PRODUCT, "created_at": 0}
            connection.execute(insert(tables.products), product)
        named = {"id": policy, "product": PRODUCT, "name": "tests", "rules_json": rules_json, "created_at": 0}
        connection.execute(insert(tables.policies), named)
        connection.execute(insert(tables.licenses), {"id": sold.id, **row, "created_at": time.time(), **columns})
    return sold


def change_license(database: Database, sold: Sold, **columns: Any) -> None:
    with database.writing() as connection:
        connection.execute(update(tables.licenses).where(tables.licenses.c.id == sold.id).values(**columns))


def change_machine(database: Database, sold: Sold, fingerprint: str, **columns: Any) -> None:
    table = tables.machines
    with database.writing() as connection:
        mine = (table.c.license_id == sold.id) & (table.c.fingerprint == fingerprint)
        assert connection.execute(update(table).where(mine).values(**columns)).rowcount == 1


def rows(database: Database, table: Any, **equal: Any) -> list[dict[str, Any]]:
    """The rows of a table whose columns are `equal`; the log's in its order."""
    query = select(table).filter_by(**equal)
    if table is tables.events:
        query = query.order_by(tables.events.c.seq)
    with database.reading() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def license_row(database: Database, sold: Sold) -> dict[str, Any]:
    return rows(database, tables.licenses, id=sold.id)[0]


def log_of(database: Database, sold: Sold) -> list[dict[str, Any]]:
    """All that the log says of the license, oldest first, data decoded."""
    return [{**row, "data": json.loads(row["data"])} for row in rows(database, tables.events, license_id=sold.id)]


def events_of(database: Database, sold: Sold) -> list[dict[str, Any]]:
    """What was done with the license, oldest first. The leader's notices come when it looks: left out."""
    notices = ("license.expired", "license.expiring", "license.overdue")
    return [row for row in log_of(database, sold) if row["type"] not in notices]
