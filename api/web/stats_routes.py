"""`GET /stats` and `GET /metrics`: the same numbers, for people's pages and for Prometheus."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from api.admin.token_store import Scope
from api.runtime import Runtime
from api.stats.report import Stats
from api.web.admin_auth import AdminAuth
from api.web.json_response import json_response

if TYPE_CHECKING:
    from api.stats.metrics import Metrics


def blueprint(runtime: Runtime, auth: AdminAuth) -> Blueprint:
    """Both calls on `runtime`, for tokens with the scope `stats:read`."""
    stats = Blueprint("stats", __name__)
    numbers = Stats(runtime)

    @functools.cache
    def metrics() -> Metrics:
        from api.stats.metrics import Metrics  # a third of a second and some megabytes that most nodes never need

        return Metrics(numbers.report)

    @stats.get("/stats")
    def show_stats() -> Response:
        auth.require(request, Scope.STATS_READ)
        return json_response(numbers.report())

    @stats.get("/metrics")
    def show_metrics() -> Response:
        auth.require(request, Scope.STATS_READ)
        return Response(metrics().text(), content_type=metrics().CONTENT_TYPE)

    return stats
