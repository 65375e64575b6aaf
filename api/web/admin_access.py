"""The calls that say who may call and what signs: admin tokens, and the permitted signing keys."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import Blueprint, Response

from api.admin.schemas import ActivateKeyBody, EmptyBody, KeyBody
from api.admin.store import Resources
from api.admin.token_store import Scope, TokenBody
from api.web.admin_guard import AdminGuard, add_route, require_scope
from api.web.json_response import json_response


def add_tokens(admin: Blueprint, guard: AdminGuard, resources: Resources) -> None:
    """A token gives and takes no scope that it has not itself: else `tokens:write` would be all of them."""

    def all() -> Response:
        guard.read(Scope.TOKENS_WRITE)
        guard.started()
        return json_response({"items": resources.tokens(), "next": None})

    def create() -> Response:
        call = guard.write(TokenBody, Scope.TOKENS_WRITE)
        for scope in call.body.scopes:
            require_scope(call.scopes, scope)
        body = call.body
        return call.answer(lambda: resources.create_token(body.name, body.scopes, call.effect), made_in="/v1/tokens")

    def get(id: str) -> Response:
        guard.read(Scope.TOKENS_WRITE)
        guard.started()
        return json_response(resources.token(id))

    def revoke(id: str) -> Response:
        scopes = guard.changer(Scope.TOKENS_WRITE)
        for scope in resources.token(id)["scopes"]:
            require_scope(scopes, scope)
        resources.revoke_token(id)
        return Response(status=204)

    add_route(admin, "/tokens", "GET", "tokens", all)
    add_route(admin, "/tokens", "POST", "token-create", create)
    add_route(admin, "/tokens/<id>", "GET", "token", get)
    add_route(admin, "/tokens/<id>", "DELETE", "token-revoke", revoke)


def add_keys(admin: Blueprint, guard: AdminGuard, resources: Resources, held: Collection[str]) -> None:
    """`held`: the kids of this node's own signing keys. Private halves come and go by no call."""
    keys = resources.signing_keys

    def all() -> Response:
        guard.read(Scope.STATS_READ)
        guard.started()
        return json_response({"items": keys.all(held), "next": None})

    def add() -> Response:
        call = guard.write(KeyBody, Scope.KEYS_WRITE)
        added = resources.once(call.effect, lambda: keys.add(call.body.jwk, held, call.effect))
        return json_response(added, 201, {"Location": "/v1/keys"})

    def activate(id: str) -> Response:
        call = guard.write(ActivateKeyBody, Scope.KEYS_WRITE, bodiless=True)

        def done() -> dict[str, Any]:
            return keys.activate(id, held, call.effect, force=call.body.force)

        return json_response(resources.once(call.effect, done))

    def retire(id: str) -> Response:
        call = guard.write(EmptyBody, Scope.KEYS_WRITE, bodiless=True)
        return json_response(resources.once(call.effect, lambda: keys.retire(id, held, call.effect)))

    add_route(admin, "/keys", "GET", "keys", all)
    add_route(admin, "/keys", "POST", "key-add", add)
    add_route(admin, "/keys/<id>/actions/activate", "POST", "key-activate", activate)
    add_route(admin, "/keys/<id>/actions/retire", "POST", "key-retire", retire)
