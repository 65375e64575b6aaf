"""Problems: every answer that is no verdict and no resource, as `application/problem+json` (RFC 9457), in one place."""

from __future__ import annotations

from typing import Any

import msgspec

#: Every code with its status and its `detail` where a problem has none of its own. The order is the contract's order of
#: precedence.
PROBLEMS: dict[str, tuple[int, str]] = {
    "ROUTE_NOT_FOUND": (404, "There is no such route"),
    "METHOD_NOT_ALLOWED": (405, "The route does not take this method"),
    "BODY_TOO_LARGE": (413, "The body is larger than 64 KiB"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "The body must be application/json, and not encoded (gzip)"),
    "RATE_LIMITED": (429, "Too many failures from here"),
    "API_KEY_INVALID": (401, "The API key is missing or wrong"),
    "TIMESTAMP_SKEWED": (401, "The timestamp is too far from this node's time"),
    "SIGNATURE_INVALID": (401, "The request's signature is missing or wrong"),
    "TOKEN_INVALID": (401, "The admin token is missing or wrong"),
    "SCOPE_MISSING": (403, "The admin token does not have the scope"),
    "MALFORMED": (400, "The request is malformed"),
    "RESOURCE_NOT_FOUND": (404, "There is no such resource"),
    "CONFLICT": (409, "The resource's state does not allow this"),
    "REQUEST_ID_REUSED": (422, "The request id was used for a call with another body"),
    "IDEMPOTENCY_KEY_REUSED": (422, "The Idempotency-Key was used for another call"),
    "INTERNAL": (500, "Something broke here"),
    "STARTING": (503, "The node is starting"),
    "LEDGER_UNAVAILABLE": (503, "The ledger cannot be reached"),
    "LEDGER_CONTRADICTS": (503, "The ledger contradicts this node's copy of it"),
    "QUEUE_FULL": (503, "The node's queue is full"),
    "OVERLOADED": (503, "The node has more to do than it can"),
}

#: RFC 9457, section 4.2.1: the title of a problem whose type is `about:blank` is its status's phrase. These are RFC
#: 9110's; `http.HTTPStatus` has those of 413 and 422 from Python 3.13 on.
TITLES: dict[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_RETRY_AFTER_S = 1


class Problem(Exception):
    """A problem to answer with. `members` join the body; `retry_after` (seconds) is sent with 429 and 503."""

    def __init__(self, code: str, detail: str = "", *, retry_after: float = _RETRY_AFTER_S, **members: Any) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.members = members

    @property
    def status(self) -> int:
        return PROBLEMS[self.code][0]


class Malformed(Problem):
    """400: `field` names what is wrong, `$` meaning the body as a whole."""

    def __init__(self, field: str, detail: str, **members: Any) -> None:
        super().__init__("MALFORMED", f"{field}: {detail}", field=field, **members)


def body_of(problem: Problem, request_id: str) -> bytes:
    """The problem's JSON, as UTF-8."""
    status, detail = PROBLEMS[problem.code]
    members = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": problem.detail or detail}
    return msgspec.json.encode(members | {"code": problem.code, "request_id": request_id} | problem.members)
