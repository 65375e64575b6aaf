"""How one route is written down: enough to make its OpenAPI operation from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from api.ids import NO_LICENSE_KEY

Security = Literal["client", "admin", "none"]


@dataclass(frozen=True)
class Parameter:
    """A path, query or header parameter with its JSON schema."""

    name: str
    place: Literal["path", "query", "header"]
    schema: dict[str, Any]
    description: str = ""
    required: bool = False


@dataclass(frozen=True)
class Route:
    """One operation. `answers`: status to the struct it is made of (None: no content, a text: its media type, a tuple:
    any one of these structs).

    `name` is its `operationId`, of which generators make the names of functions. `problems` are the statuses it may
    answer as `application/problem+json`, besides what `security` brings along.
    """

    method: Literal["get", "post", "patch", "delete"]
    path: str
    name: str
    summary: str
    tag: str
    security: Security
    answers: dict[int, Any]
    body: Any = None
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()
    scope: str | None = None
    example: dict[str, Any] = field(default_factory=dict)
    #: Media types that the 200 answer may come as besides, where the caller asks for them.
    also: tuple[str, ...] = ()
    #: What the operation's description says besides its scope.
    note: str = ""
    #: Whether the call may come without its body.
    bodiless: bool = False


IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": f"^{NO_LICENSE_KEY}[A-Za-z0-9_-]{{8,64}}$"},
    "Made anew for each call and sent with all its retries: one effect, and within 24 hours the first answer again, a "
    "license's new key included, on whichever node. Under another body or route it is 422 "
    "`IDEMPOTENCY_KEY_REUSED`; another token's is another key. A call that was refused, or met a 503, may be "
    "sent again under it.",
)
ID = Parameter("id", "path", {"type": "string", "minLength": 1}, required=True)
