"""What the server itself has to say, before the application is asked or in its stead: a problem+json (RFC 9457)."""

import json
import re
import uuid
from http import HTTPStatus

from api.ids import NO_LICENSE_KEY

from .application import PRIVATE, Reply

_HEADERS = (("Content-Type", "application/problem+json"), *PRIVATE)
_REQUEST_ID = re.compile(NO_LICENSE_KEY + "[A-Za-z0-9_-]{8,64}")


def problem(status: HTTPStatus, code: str, detail: str, sent_id: str, *headers: tuple[str, str]) -> Reply:
    """A problem with these `headers` besides. `sent_id`: the caller's `X-Request-Id`, kept where it is well formed."""
    members = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": sent_id if _REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex,
    }
    return Reply(status.value, [*_HEADERS, *headers], json.dumps(members).encode())


def overloaded(sent_id: str) -> Reply:
    """All that can be at work at a time is."""
    detail = "this node has as much to do as it can; ask the next server, or this one again in a second"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "OVERLOADED", detail, sent_id, ("Retry-After", "1"))


def broken(sent_id: str) -> Reply:
    """An unexpected exception."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "something broke here", sent_id)


def malformed(detail: str, sent_id: str) -> Reply:
    """The request cannot be read."""
    return problem(HTTPStatus.BAD_REQUEST, "MALFORMED", detail, sent_id)
