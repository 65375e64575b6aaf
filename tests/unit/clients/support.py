"""A vendor's signing key, servers without sockets that answer as they are told, and a clock to turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from license_client import LicenseClient, Reply, TransportFailed
from tests.vectors import jws

KEY = "PROT-7Q2M-4XKD-9WFA-3HTZ"
PRODUCT = "notepad-pro"
FINGERPRINT = "5d8f2c61a7e94b03"
NOW = 1_764_000_000
LEDGER = "ledger-1"
VENDOR = jws.key_of("the Python client's tests: the vendor")
STRANGER = jws.key_of("the Python client's tests: a stranger")
SERVERS = ("https://one.example", "https://two.example", "https://three.example")

Json = dict[str, Any]
#: What a server does with a request: its path, body and headers.
Behaviour = Callable[[str, bytes, Mapping[str, str]], Reply]


class Clock:
    """Unix seconds, as a test sets them."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# -- what a node answers ----------------------------------------------------------------------------------------------


def verdict(
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    token: str | None = None,
    at: float = NOW,
    private: Any = VENDOR,
    **changes: Any,
) -> str:
    """The signed verdict on a request, beside `token`; a claim of `changes` that is None is left out."""
    sent = json.loads(body)
    claims = {
        "iss": "protecao", "iat": int(at), "exp": int(at) + 300, "jti": "1", "act": path.removeprefix("/v1/"),
        "nonce": sent["nonce"], "rid": headers["X-Request-Id"], "rh": jws.digest(body), "sub": "license-1",
        "kh": jws.digest(sent["key"]), "th": jws.digest(token) if isinstance(token, str) else None, "led": LEDGER,
        "fp": sent.get("fingerprint"), "aud": PRODUCT, "code": "VALID", "valid": True, "lic_exp": int(at) + 86_400 * 30,
        "ent": ["pro"], "uses": 1, "max_uses": 10, "node": "node-1", "epoch": 3, "as_of": int(at),
    }  # fmt: skip
    return jws.compact(jws.header_of(private, "verdict+jwt"), _with(claims, changes), private)


def lease(*, at: float = NOW, ttl: int = 604_800, private: Any = VENDOR, **changes: Any) -> str:
    """An offline token."""
    claims = {
        "iss": "protecao", "iat": int(at), "nbf": int(at), "exp": int(at) + ttl, "jti": "2", "sub": "license-1",
        "kh": jws.digest(KEY), "fp": FINGERPRINT, "aud": PRODUCT, "ent": ["pro"], "lic_exp": int(at) + 86_400 * 30,
        "led": LEDGER, "epoch": 3,
    }  # fmt: skip
    return jws.compact(jws.header_of(private, "lease+jwt"), _with(claims, changes), private)


def _with(claims: Json, changes: Json) -> Json:
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def answered(verdict: str, token: str | None = None) -> Reply:
    """The JSON around the tokens says the opposite of what is signed: nobody may believe it."""
    around = {"valid": False, "code": "BANNED", "detail": "<b>unsigned</b>"}
    return Reply(200, json.dumps({**around, "verdict": verdict, "token": token}).encode())


def says(code: str = "VALID", *, valid: bool | None = None, token: str | None = None, **changes: Any) -> Behaviour:
    """A server that answers every call so. `valid`: by default only for the code VALID."""
    outcome = {"code": code, "valid": code == "VALID" if valid is None else valid}

    def behave(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return answered(verdict(path, body, headers, token=token, **{**outcome, **changes}), token)

    return behave


def denies(code: str, **changes: Any) -> Behaviour:
    return says(code, valid=False, **changes)


def gone(reason: str = "refused") -> Behaviour:
    def behave(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        raise TransportFailed(reason)

    return behave


def problem(status: int, code: str, **members: Any) -> Behaviour:
    raw = json.dumps({"code": code, "status": status, **members}).encode()
    return lambda path, body, headers: Reply(status, raw)


# -- the client's side ------------------------------------------------------------------------------------------------


class Servers:
    """A transport to servers by URL. What was asked is in `asked` (URLs) and `sent` (path, body, headers, time-out)."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behave: dict[str, Behaviour] = dict(zip(SERVERS, behaviours, strict=False))
        self.asked: list[str] = []
        self.sent: list[tuple[str, Json, Mapping[str, str], float]] = []
        self.closed = False

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        server = next(known for known in SERVERS if url.startswith(known))
        path = url.removeprefix(server)
        self.asked.append(server)
        self.sent.append((path, json.loads(body), headers, timeout))
        return self.behave[server](path, body, headers)

    def close(self) -> None:
        self.closed = True

    def asked_since(self) -> list[str]:
        """Who was asked since this was last called."""
        asked, self.asked = self.asked, []
        return asked


def client_of(servers: Servers, folder: Path, clock: Clock | None = None, /, **changes: Any) -> LicenseClient:
    """A client of as many servers as have a behaviour, whose files are all under `folder`."""
    given: Json = {
        "servers": list(servers.behave), "product": PRODUCT, "key": KEY, "public_keys": [jws.jwk_of(VENDOR)],
        "api_key": "api-key", "shared_secret": "shared-secret", "fingerprint": FINGERPRINT, "transport": servers,
        "state_dir": folder / "state", "floor_dir": folder / "elsewhere", "log_dir": folder, "now": clock or Clock(),
    }  # fmt: skip
    return LicenseClient(**{**given, **changes})


def lines(folder: Path, name: str) -> list[list[str]]:
    """A log file's lines, each as its fields; none where there is no file."""
    path = folder / name
    return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []
