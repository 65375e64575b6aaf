"""The client calls and what a node says of itself, as the OpenAPI document has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.checks import answers
from api.checks.schemas import BODIES
from api.ids import NO_LICENSE_KEY
from api.licensing import Act
from api.signing.tokens import LEASE_TYP, VERDICT_TYP, LeaseClaims, VerdictClaims
from api.web.openapi.routes import Parameter, Route
from api.web.openapi.shapes import without_nulls

_SUMMARIES = {
    Act.VALIDATE: "Is this license valid, here and now?",
    Act.ACTIVATE: "Give this machine a seat",
    Act.DEACTIVATE: "Free this machine's seat",
    Act.PING: "The machine's heartbeat",
    Act.CHECK_IN: "Reset the license's check-in clock",
    Act.USAGE: "Count uses, all or nothing",
    Act.CHECKOUT: "A token to work offline with",
}
_NOTES = {
    Act.VALIDATE: "What is not sent is not checked. The verdict's `token` lets this machine go on offline.",
    Act.ACTIVATE: "The same machine again is the same machine, never an error. One effect for each `X-Request-Id`.",
    Act.DEACTIVATE: "Whatever the license's state and however often. One effect for each `X-Request-Id`.",
    Act.PING: "A machine that was never activated is answered `NO_MACHINE` or `NO_MACHINES`.",
    Act.CHECK_IN: "Not when the license is banned, suspended or expired.",
    Act.USAGE: "`USES_EXHAUSTED` when they do not all fit, and none is counted. One effect for each `X-Request-Id`.",
    Act.CHECKOUT: "The verdict's `token` lives for `ttl` seconds, but never beyond the license's expiry and grace.",
}

_REQUEST_ID = {"type": "string", "pattern": f"^{NO_LICENSE_KEY}[A-Za-z0-9_-]{{8,64}}$"}
_SIGNING = (
    Parameter("X-Request-Id", "header", _REQUEST_ID, "The same for every retry of one call; needed with a signature"),
    Parameter("X-Timestamp", "header", {"type": "string", "pattern": "^[0-9]{1,12}$"}, "Unix seconds, within 300 s"),
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


def _jws(typ: str, claims: type[msgspec.Struct]) -> Meta:
    """A signed token as JSON Schema describes one (2020-12, validation, section 8.4): its header, and its claims."""
    head = {
        "type": "object",
        "properties": {"alg": {"const": "ES256"}, "kid": {"type": "string"}, "typ": {"const": typ}},
        "required": ["alg", "kid", "typ"],
    }
    parts = [head, {"$ref": f"#/components/schemas/{claims.__name__}"}]
    content = {"type": "array", "prefixItems": parts, "items": {}, "maxItems": 2}
    return Meta(
        description=f"A JWS (compact, ES256) of the `{claims.__name__}`",
        extra_json_schema={"contentMediaType": "application/jwt", "contentSchema": content},
    )


class Answer(answers.Answer, frozen=True, kw_only=True):
    """One verdict. Programs act only on the claims of `verdict` and `token`; the rest is for display."""

    verdict: Annotated[str, _jws(VERDICT_TYP, VerdictClaims)]
    token: Annotated[str, _jws(LEASE_TYP, LeaseClaims)] | None


CLAIMS: tuple[type[msgspec.Struct], ...] = (without_nulls(VerdictClaims), without_nulls(LeaseClaims))
"""What the tokens in an answer hold; only these schemas' own names refer to them."""


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
            name=act.replace("-", "_"),
            summary=_SUMMARIES[act],
            tag="Client calls",
            security="client",
            answers={200: Answer},
            body=BODIES[act],
            parameters=_SIGNING,
            problems=(422,) if act in (Act.ACTIVATE, Act.DEACTIVATE, Act.USAGE) else (),
            example=_EXAMPLE | _EXAMPLES[act],
            note=_NOTES[act],
        )
        for act in Act
    ),
    Route(
        "get", "/.well-known/jwks.json", "get_public_keys", "The public keys", "Node", "none", {200: JwkSet},
        note="For people and new clients to look at: a program pins its keys, and takes none from an answer.",
    ),
    Route(
        "get", "/livez", "get_liveness", "Does the process answer?", "Node", "none", {200: Alive},
        note="Touches nothing else.",
    ),
    Route(
        "get", "/readyz", "get_readiness", "Can this node give verdicts?", "Node", "none",
        {200: Readiness, 503: Readiness}, note="Also where the node is isolated from its ledger.",
    ),
    Route(
        "get", "/health", "get_health", "The same as /readyz", "Node", "none", {200: Readiness, 503: Readiness},
        note="Under the name that some hosts ask for.",
    ),
    Route(
        "get", "/openapi.json", "get_openapi", "This document", "Node", "none", {200: dict[str, Any]},
        note="OpenAPI 3.1.",
    ),
    Route(
        "get", "/docs", "get_docs", "This document as a page", "Node", "none", {200: "text/html"},
        note="It needs no other host.",
    ),
)  # fmt: skip
