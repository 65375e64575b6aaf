"""How one route is written down: enough to make its OpenAPI operation from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
    """One operation. `answers`: status to the struct it is made of (None: no content, a text: its media type).

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
