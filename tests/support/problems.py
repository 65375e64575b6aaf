"""What every problem looks like, checked in every respect."""

from __future__ import annotations

import json
import re
from typing import Any

from werkzeug.test import TestResponse

from api.problems import TITLES
from tests.support.nodes import Answer


def problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The members of a problem, which is one in every respect."""
    assert response.status_code == status, response.data
    assert response.headers["Content-Type"] == "application/problem+json"
    body = json.loads(response.data)
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["title"] == TITLES[status]
    assert body["detail"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{8,64}", body["request_id"])
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert (response.headers["Cache-Control"], response.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    return dict(body)


def malformed(answer: Answer, field: str) -> str:
    """The detail of a 400 that names `field`."""
    body = problem(answer.response, 400, "MALFORMED")
    assert body["field"] == field, body
    assert body["detail"].startswith(f"{field}: ")
    return str(body["detail"])
