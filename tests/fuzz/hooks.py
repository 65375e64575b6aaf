"""Schemathesis' hooks: most calls are let in and most name a license that exists, or they would all end at the door."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any
from urllib.parse import urlsplit

import schemathesis

from api.web.client_auth import signature

_KEYS = json.loads(os.environ["FUZZ_KEYS"])
_IDS: dict[str, list[str]] = json.loads(os.environ["FUZZ_IDS"])
_CLIENT = {f"/v1/{act}" for act in ("validate", "activate", "deactivate", "ping", "check-in", "usage", "checkout")}
_choose = random.Random(0)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Names a license that exists and authorises the call, but for some that stay as they were generated."""
    if case.path in _CLIENT and _names_a_key(case.body) and _choose.random() < 0.9:
        case.body["key"] = _choose.choice(_KEYS)
    ids = _IDS.get(case.path.split("/")[2] if case.path.startswith("/v1/") else "")
    if ids and "id" in (case.path_parameters or {}) and _choose.random() < 0.6:
        case.path_parameters["id"] = _choose.choice(ids)
    if _choose.random() < 0.95:
        case.headers = {**(case.headers or {}), "X-API-Key": os.environ["FUZZ_API_KEY"]}
        if case.path not in _CLIENT:
            case.headers["Authorization"] = f"Bearer {os.environ['FUZZ_TOKEN']}"
    # requests calls it with the prepared request: what is signed is what is sent.
    kwargs["auth"] = _Signature(os.environ["FUZZ_SECRET"])


def _names_a_key(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("key"), str) and 8 <= len(body["key"]) <= 128


class _Signature:
    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __call__(self, request: Any) -> Any:
        if _choose.random() < 0.95 and urlsplit(request.url).path in _CLIENT:
            body = request.body or b""
            body = body.encode() if isinstance(body, str) else body
            timestamp, id = str(int(time.time())), f"request-{_choose.getrandbits(40)}"
            text = f"{id}.{timestamp}.{request.method} {urlsplit(request.url).path}.".encode() + body
            request.headers.update({"X-Request-Id": id, "X-Timestamp": timestamp})
            request.headers["X-Signature"] = signature(self._secret, text)
        return request
