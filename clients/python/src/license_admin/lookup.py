"""What people call things by, and the one thing that is meant: licenses, policies, products, tokens."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from license_admin.api import AdminApi, part
from license_admin.errors import NotOne, Refused
from license_client.license_key import canonical_key

#: As many candidates are shown: more help nobody to choose.
_SHOWN = 20
_ID = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SHORTEST_KEY, _HINT, _LONGEST_REF = 8, 4, 200
#: A key of the servers' own making, which is no reference.
_OURS = re.compile(r"[0-9A-HJKMNP-TV-Z]{6}(-[0-9A-HJKMNP-TV-Z]{6}){4}", re.ASCII)

Json = dict[str, Any]


def license_of(api: AdminApi, text: str) -> Json:
    """The license with this key, id, e-mail, external reference or key hint (the key's last four characters).

    The first of these that any license fits decides. Raises `NotOne` with the candidates where several fit, and where
    none does, with those whose name, e-mail, reference or hint contains the text.
    """
    text = text.strip()
    for query in _queries(text) if text else ():
        found = _found(api, query)
        if found:
            return _one(found, f"{len(found)} licenses fit {_shown(text)}; name one by its id")
    # A text that may be a mistyped key is not searched for: it would stand in an address.
    similar = list(api.every("/v1/licenses", _SHOWN, q=text)) if 1 <= len(text) < _SHORTEST_KEY or "@" in text else []
    raise NotOne(f"no license has this id, key, e-mail, reference or hint: {_shown(text)}", similar)


def policy_of(api: AdminApi, text: str) -> Json:
    """The policy with this id or name. Raises `NotOne`."""
    return _by_id(api, "/v1/policies", text) or _named(list(api.every("/v1/policies")), "name", text, "policy")


def product_of(api: AdminApi, text: str) -> Json:
    """The product with this id or code. Raises `NotOne`."""
    return _by_id(api, "/v1/products", text) or _named(list(api.every("/v1/products")), "code", text, "product")


def token_of(api: AdminApi, text: str) -> Json:
    """The token with this id or name. Raises `NotOne`."""
    return _by_id(api, "/v1/tokens", text) or _named(api.get("/v1/tokens")["items"], "name", text, "token")


def key_of(api: AdminApi, text: str) -> Json:
    """The signing key whose kid is, or begins with, `text`. Raises `NotOne`."""
    keys = api.get("/v1/keys")["items"]
    fitting = [key for key in keys if key["kid"] == text] or [key for key in keys if key["kid"].startswith(text)]
    if not text or not fitting:
        raise NotOne(f"no signing key has the kid {text!r}", keys)
    return _one(fitting, f"several signing keys begin with {text!r}")


def _queries(text: str) -> list[dict[str, str]]:
    key = canonical_key(text)
    queries = []
    if len(key) >= _SHORTEST_KEY:
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        # Its hash is looked for: a license key has no place in an address, which proxies write down.
        queries.append({"key_hash": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()})
    if _UUID.fullmatch(text):
        queries.append({"id": text})
    if "@" in text:
        queries.append({"email": text})
    if len(text) <= _LONGEST_REF and not _OURS.fullmatch(key):
        queries.append({"external_ref": text})
    if len(text) <= _HINT:
        queries += [{"key_hint": hint} for hint in dict.fromkeys((text, text.upper()))]
    return queries


def _found(api: AdminApi, query: dict[str, str]) -> list[Json]:
    if "id" not in query:
        return list(api.every("/v1/licenses", _SHOWN, **query))
    by_id = _by_id(api, "/v1/licenses", query["id"])
    return [] if by_id is None else [by_id]


def _by_id(api: AdminApi, path: str, text: str) -> Json | None:
    if _ID.fullmatch(text) is None:
        return None
    try:
        return api.get(f"{path}/{part(text)}")
    except Refused as refused:
        if refused.code != "RESOURCE_NOT_FOUND":
            raise
        return None


def _named(items: Sequence[Json], name: str, text: str, kind: str) -> Json:
    fitting = [item for item in items if item[name] == text]
    if not fitting:
        raise NotOne(f"no {kind} has the id or {name} {text!r}", items[:_SHOWN])
    return _one(fitting, f"the {name} {text!r} is of {len(fitting)}: name one by its id")


def _one(found: Sequence[Json], text: str) -> Json:
    if len(found) > 1:
        raise NotOne(text, found)
    return found[0]


def _shown(text: str) -> str:
    """The text, unless it may be a license key, which no message holds."""
    return text if len(text) < _SHORTEST_KEY or "@" in text else f"the one that was given (...{text[-_HINT:]})"
