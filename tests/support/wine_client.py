"""Steps for the drivers, and servers that answer an AutoHotkey client with what it can verify."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from license_client import Reply
from tests.support.wine import Json, windows_path
from tests.unit.clients.support import KEY, PRODUCT, VENDOR, Behaviour, answered, lease, verdict
from tests.vectors import jws

#: Milliseconds, for servers that answer at once on a machine that may not: then only the order of the servers counts.
CALM = (30_000, 30_000)


def new(folder: Path, *urls: str, budgets: tuple[int, ...] | None = CALM, **changes: Any) -> Json:
    """A client of the tests' vendor whose files are all in `folder`, but for the logs. `changes` are more options.

    `budgets`: milliseconds for a server in the passes; None leaves them as they are.
    """
    options = {
        "servers": list(urls), "product": PRODUCT, "key": KEY, "publicKeys": json.dumps(jws.jwk_of(VENDOR)),
        "apiKey": "api-key", "sharedSecret": "shared-secret", "folder": windows_path(folder),
        "registry": f"HKCU\\Software\\{folder.name}",
    }  # fmt: skip
    given = {} if budgets is None else {"budgets": list(budgets)}
    return {"do": "new", "options": {**options, **changes}, **given}


def anew() -> str:
    """A key of the registry where nothing is remembered: which server failed, above all."""
    return f"HKCU\\Software\\{uuid.uuid4().hex}"


def call(method: str, *arguments: Any) -> Json:
    return {"do": "call", "method": method, "with": list(arguments)}


def clock(by: int, since: float | None = None) -> Json:
    """The machine's clock stands still from now on, so many seconds off `since` (Unix seconds), by default off now."""
    return {"do": "clock", "at": int(time.time() if since is None else since) + by}


def machine(*parts: str) -> Json:
    """The id of the Windows, the volume and the board, hashed, from now on."""
    return {"do": "machine", "parts": list(parts)}


def copy(source: Path, target: Path) -> Json:
    return {"do": "copy", "from": windows_path(source), "to": windows_path(target)}


def seal(path: Path, content: Mapping[str, Any]) -> Json:
    """A file of the client's own with something else in it."""
    return {"do": "seal", "path": windows_path(path), "text": json.dumps(content)}


def remove(path: Path) -> Json:
    return {"do": "remove", "path": windows_path(path)}


def forget(key: str) -> Json:
    """A key of the registry with all that is in it."""
    return {"do": "forget", "key": key}


def results(answers: Iterable[Json]) -> list[Json]:
    """What the calls among the steps gave."""
    return [answer for answer in answers if "valid" in answer]


def outcome(answer: Mapping[str, Any]) -> tuple[bool, str, str]:
    return answer["valid"], answer["code"], answer["source"]


def reasons(answer: Mapping[str, Any]) -> list[str]:
    """Why the servers that were asked did not decide."""
    return [reason for _, reason in answer["attempts"]]


def grants(ttl: int = 604_800, *, age: int = 0, ahead: int = 0, **changes: Any) -> Behaviour:
    """A server that answers every call VALID, with a token of this machine that was made `age` seconds ago.

    `ahead`: by how many seconds its clock is wrong; `changes` are claims of the token.
    """

    def behave(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        sent, now = json.loads(body), int(time.time()) + ahead
        bound = {"fp": sent.get("fingerprint"), "kh": jws.digest(sent["key"])}
        token = lease(at=now - age, ttl=ttl, **{**bound, **changes}) if bound["fp"] else None
        return answered(verdict(path, body, headers, token=token, at=now), token)

    return behave


def denies_now(code: str, **changes: Any) -> Behaviour:
    """A server that denies every call; `changes` are claims of its verdict."""

    def behave(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return answered(verdict(path, body, headers, at=time.time(), code=code, valid=False, **changes))

    return behave


def whole(behave: Callable[..., Reply], path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body that a behaviour answers with."""
    return behave(path, body, headers).body
