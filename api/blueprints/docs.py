"""`/openapi.json` and `/docs`: the same document for programs and for people, from this host alone."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
from flask import Blueprint, Response, render_template

from api.openapi import Route, document
from api.version import VERSION


def blueprint(routes: Iterable[Route]) -> Blueprint:
    """Serves the document of `routes`."""
    docs = Blueprint("docs", __name__, template_folder="../templates")
    written = document(routes, VERSION)
    encoded = msgspec.json.encode(written)

    @docs.get("/openapi.json")
    def openapi() -> Response:
        return Response(encoded, content_type="application/json")

    @docs.get("/docs")
    def page() -> Response:
        # The page needs nothing but itself, and says so to the browser.
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        html = render_template("docs.html", api=written, dumps=lambda value: json.dumps(value, indent=2))
        return Response(html, headers={"Content-Security-Policy": policy})

    return docs
