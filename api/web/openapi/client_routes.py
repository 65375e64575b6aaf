"""The client calls and what a node says of itself, as the OpenAPI document has them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from api.checks.answers import Answer
from api.checks.schemas import BODIES
from api.licensing import Act
from api.web.openapi.routes import Parameter, Route

_SUMMARIES = {
    Act.VALIDATE: "Is this license valid, here and now?",
    Act.ACTIVATE: "Give this machine a seat",
    Act.DEACTIVATE: "Free this machine's seat",
    Act.PING: "The machine's heartbeat",
    Act.CHECK_IN: "Reset the license's check-in clock",
    Act.USAGE: "Count uses, all or nothing",
    Act.CHECKOUT: "A token to work offline with",
}

_REQUEST_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"}
_SIGNING = (
    Parameter("X-API-Key", "header", {"type": "string"}, "Where the node asks for it"),
    Parameter("X-Request-Id", "header", _REQUEST_ID, "The same for every retry of one call; needed with a signature"),
    Parameter("X-Timestamp", "header", {"type": "string", "pattern": "^[0-9]{1,12}$"}, "Unix seconds, within 300 s"),
    Parameter(
        "X-Signature",
        "header",
        {"type": "string"},
        "`v1,` and base64 of HMAC-SHA256(secret, `{X-Request-Id}.{X-Timestamp}.{METHOD} {path}.` + body)",
    ),
)

_EXAMPLE = {"key": "DEMO-KEY-0000", "nonce": "1f0e5a8c9b7d4e6f"}
_EXAMPLES: dict[Act, dict[str, Any]] = {
    Act.VALIDATE: {"product": "demo", "fingerprint": "machine-1"},
    Act.ACTIVATE: {"fingerprint": "machine-1", "name": "Office PC", "product": "demo"},
    Act.DEACTIVATE: {"fingerprint": "machine-1"},
    Act.PING: {"fingerprint": "machine-1"},
    Act.CHECK_IN: {},
    Act.USAGE: {"increment": 1},
    Act.CHECKOUT: {"fingerprint": "machine-1", "ttl": 86_400},
}


class Jwk(msgspec.Struct):
    """A public P-256 key (RFC 7517)."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str
    y: str
    kid: str
    alg: str
    use: str


class JwkSet(msgspec.Struct):
    """The permitted public keys, the current one first."""

    keys: list[Jwk]


class Alive(msgspec.Struct):
    status: Literal["alive"]


class Readiness(msgspec.Struct):
    """Whether this node can give verdicts now; `waiting_for` says what it lacks.

    `troubles`: what an operator has to see to while it serves, each as a sentence, such as two nodes of one rank, a
    wall clock that is over 60 s off, a queue that is full, a disk that takes nothing.
    """

    ready: bool
    waiting_for: str | None
    node: str
    role: str
    state: str
    ledger: Literal["reachable", "unreachable"]
    snapshot_age_s: float | None
    wall_clock_skew_s: float
    troubles: list[str]
    jobs: dict[str, dict[str, float | None]]


CLIENT_ROUTES: tuple[Route, ...] = (
    *(
        Route(
            method="post",
            path=f"/v1/{act}",
            summary=_SUMMARIES[act],
            tag="Client calls",
            security="client",
            answers={200: Answer},
            body=BODIES[act],
            parameters=_SIGNING,
            problems=(422,) if act in (Act.ACTIVATE, Act.DEACTIVATE, Act.USAGE) else (),
            example=_EXAMPLE | _EXAMPLES[act],
        )
        for act in Act
    ),
    Route("get", "/.well-known/jwks.json", "The public keys", "Node", "none", {200: JwkSet}, problems=(503,)),
    Route("get", "/livez", "Does the process answer?", "Node", "none", {200: Alive}),
    Route("get", "/readyz", "Can this node give verdicts?", "Node", "none", {200: Readiness, 503: Readiness}),
    Route("get", "/health", "The same as /readyz", "Node", "none", {200: Readiness, 503: Readiness}),
    Route("get", "/openapi.json", "This document", "Node", "none", {200: dict[str, Any]}),
    Route("get", "/docs", "This document as a page", "Node", "none", {200: "text/html"}),
)
