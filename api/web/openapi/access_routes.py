"""Tokens, signing keys, import and export, as the OpenAPI document has them."""

from __future__ import annotations

import msgspec

from api.admin.schemas import ActivateKeyBody, EmptyBody, ImportBody, KeyBody
from api.admin.token_store import Scope, TokenBody
from api.node.clock import Timestamp
from api.signing import KeyStatus
from api.web.openapi.client_routes import Jwk
from api.web.openapi.routes import ID, IDEMPOTENCY_KEY, Parameter, Route

_EXAMPLE_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


class TokenView(msgspec.Struct, kw_only=True):
    """An admin token. `token` is there once, when it was made."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: Timestamp
    token: str | msgspec.UnsetType = msgspec.UNSET


class TokenList(msgspec.Struct, kw_only=True):
    """The tokens that have not been revoked, oldest first."""

    items: list[TokenView]
    next: None


class SigningKeyView(msgspec.Struct, kw_only=True):
    """A permitted key. `held`: the node that answers has its private half."""

    kid: str
    status: KeyStatus
    held: bool
    jwk: Jwk
    created_at: Timestamp
    changed_at: Timestamp


class SigningKeyList(msgspec.Struct, kw_only=True):
    """In the order next, current, previous, revoked."""

    items: list[SigningKeyView]
    next: None


class Imported(msgspec.Struct, kw_only=True):
    """How many rows were taken; `imported` false: could be, as far as was checked."""

    rows: int
    imported: bool


_TOKENS, _KEYS = "tokens:write", "keys:write"
_ONLY_OWN = "A token gives and takes no scope that it has not itself."
_HASHES = Parameter(
    "hashes",
    "query",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
    "With the hashes of the keys, for an import into another ledger; needs `licenses:write` too",
)

ACCESS_ROUTES: tuple[Route, ...] = (
    Route("get", "/v1/tokens", "list_tokens", "List tokens", "Access", "admin", {200: TokenList}, scope=_TOKENS),
    Route(
        "post", "/v1/tokens", "create_token", "Make a token", "Access", "admin", {201: TokenView}, TokenBody,
        (IDEMPOTENCY_KEY,), (409, 422), _TOKENS, {"name": "support", "scopes": ["licenses:read", "licenses:write"]},
        note=_ONLY_OWN,
    ),
    Route(
        "get", "/v1/tokens/{id}", "get_token", "One token", "Access", "admin", {200: TokenView}, None, (ID,), (404,),
        _TOKENS,
    ),
    Route(
        "delete", "/v1/tokens/{id}", "revoke_token", "Revoke a token", "Access", "admin", {204: None}, None, (ID,),
        (404, 413, 415), _TOKENS, note=f"Other nodes go by it within a second. {_ONLY_OWN}",
    ),
    Route(
        "get", "/v1/keys", "list_signing_keys", "The permitted signing keys", "Access", "admin", {200: SigningKeyList},
        scope="stats:read",
    ),
    Route(
        "post", "/v1/keys", "add_signing_key", "Permit a key as the next one", "Access", "admin", {201: SigningKeyView},
        KeyBody, (IDEMPOTENCY_KEY,), (409, 422), _KEYS, {"jwk": _EXAMPLE_JWK},
        note="Its public half. Private halves are set as `SIGNING_KEY` of each node and come and go by no call.",
    ),
    Route(
        "post", "/v1/keys/{id}/actions/activate", "activate_signing_key", "Make a key the one that signs", "Access",
        "admin", {200: SigningKeyView}, ActivateKeyBody, (ID, IDEMPOTENCY_KEY), (404, 409, 422), _KEYS,
        {"force": False}, bodiless=True,
        note="`id` is its kid. Every node must hold its private half: 409 where the one that is asked does not, unless "
        "`force` says that it is meant.",
    ),
    Route(
        "post", "/v1/keys/{id}/actions/retire", "retire_signing_key", "Revoke a key for good", "Access", "admin",
        {200: SigningKeyView}, EmptyBody, (ID, IDEMPOTENCY_KEY), (404, 409, 422), _KEYS, {}, bodiless=True,
        note="`id` is its kid. The one that signs now is 409.",
    ),
)  # fmt: skip

BULK_ROUTES: tuple[Route, ...] = (
    Route(
        "post", "/v1/licenses/import", "import_licenses", "Take licenses that another system sold", "Licenses", "admin",
        {200: Imported}, ImportBody, (IDEMPOTENCY_KEY,), (409, 422), "licenses:write",
        {"rows": [{"policy": "7c1d2f3e-52c4-4f0a-8b1e-3a9d5c6b7e20", "key": "OLD-KEY-0001", "name": "Ada"}]},
        note="All rows or none. Each has `policy` and `key` (or `key_hash` and `key_hint` of an export), and any of "
        "`name`, `email`, `expires_at`, `max_machines`, `max_uses`, `entitlements` (`a;b`), `metadata`, "
        "`external_ref`, `status`, `uses`, `created_at`; numbers and JSON may come as text, as cells of CSV do. Where "
        "some are bad, the problem names all of them in `rows`. `check` imports nothing and answers the same, "
        "under the same `Idempotency-Key` too.",
    ),
    Route(
        "get", "/v1/licenses/export", "export_licenses", "Every license, as an import takes it", "Licenses", "admin",
        {200: "text/csv"}, None, (_HASHES,), scope="licenses:read", also=("application/x-ndjson",),
        note="Streamed as CSV or, with `Accept: application/x-ndjson`, as a line of JSON for each license. It holds no "
        "keys: the ledger has only their hashes and last four characters.",
    ),
)  # fmt: skip
