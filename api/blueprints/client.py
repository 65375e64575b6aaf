"""The calls of clients: `POST /v1/validate` and its kin, each answered with a signed verdict."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Blueprint, Request, Response, request
from flask_cors import CORS

from api.auth import ClientAuth
from api.intake import Intake
from api.licensing import Act
from api.rate_limit import FailureLimiter
from api.runtime import Runtime
from api.service import check


def blueprint(runtime: Runtime, limiter: FailureLimiter) -> Blueprint:
    """The client calls on `runtime`."""
    client = Blueprint("client", __name__)
    if runtime.settings.cors_origins:
        CORS(client, origins=list(runtime.settings.cors_origins), max_age=600)
    intake = Intake(ClientAuth(runtime.settings), limiter, runtime.clock)
    for act in Act:
        client.add_url_rule(f"/v1/{act}", act, _view(runtime, intake, act), methods=["POST"])
    return client


def _view(runtime: Runtime, intake: Intake, act: Act) -> Callable[[], Response]:
    def view() -> Response:
        # The request itself: each look through Flask's proxy costs as much as what it looks at.
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        taken = intake.take(act, asked)
        refuse_limited = partial(intake.refuse_limited, taken, asked)
        answered = check(runtime, act, taken.body, taken.raw, taken.request_id, refuse_limited)
        if answered.unknown_key:
            intake.unknown_key(taken, asked)
        return Response(answered.body, content_type="application/json")

    return view
