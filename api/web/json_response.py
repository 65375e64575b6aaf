"""A JSON answer, encoded by msgspec, since Flask's own encoder knows no structs."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The answer with `value` as its body, encoded as JSON."""
    return Response(msgspec.json.encode(value), status, headers, content_type="application/json")
