"""What a node says of itself to anyone: its public keys, whether it lives, and whether it can give verdicts."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from api.runtime import Runtime
from api.server.phase import DRAINING
from api.web.json_response import json_response
from api.web.public_pages import Page


def blueprint(runtime: Runtime) -> Blueprint:
    meta = Blueprint("meta", __name__)

    @meta.get("/.well-known/jwks.json")
    def jwks() -> Response:
        runtime.require_started()
        return Page(msgspec.json.encode(runtime.published_keys), "application/json").response()

    @meta.get("/livez")
    def livez() -> Response:
        return json_response({"status": "alive"})

    @meta.get("/readyz")
    @meta.get("/health")
    def readyz() -> Response:
        report = readiness(runtime, leaving=bool(request.environ.get(DRAINING)))
        return json_response(report, 200 if report["ready"] else 503, {} if report["ready"] else {"Retry-After": "1"})

    return meta


def readiness(runtime: Runtime, *, leaving: bool = False) -> dict[str, Any]:
    """Whether this node can give verdicts now, and what an operator looks at first when it cannot.

    `leaving`: the server is about to end; what reaches it is still answered, and nothing more should be sent.
    """
    waiting_for = "its end" if leaving else runtime.waiting_for
    published = runtime.node_state.read()
    copied = None if published is None else published.snapshot
    jobs = runtime.jobs.last_success_s() | ({} if published is None else published.jobs)
    return {
        "ready": waiting_for is None,
        "waiting_for": waiting_for,
        "node": runtime.node.id,
        "role": runtime.node.role,
        "state": runtime.node.state if waiting_for is None else "STARTING",
        "ledger": "reachable" if runtime.ledger_reachable else "unreachable",
        "snapshot_age_s": None if copied is None else round(max(0.0, runtime.clock.now() - copied.as_of), 1),
        "wall_clock_skew_s": round(runtime.clock.wall_skew, 3),
        "troubles": runtime.troubles,
        "jobs": {name: {"last_success_s": age} for name, age in jobs.items()},
    }
