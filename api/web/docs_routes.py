"""`/openapi.json` and `/docs`: the same document for programs and for people, from this host alone."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
from flask import Blueprint, Response, render_template

from api.version import VERSION
from api.web.openapi import Route, document
from api.web.public_pages import Page, SingleFlight

#: The page needs nothing but itself, and says so to the browser.
_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def blueprint(routes: Iterable[Route]) -> Blueprint:
    """Serves the document of `routes`."""
    docs = Blueprint("docs", __name__, template_folder="../templates")
    written = document(routes, VERSION)
    encoded = Page(msgspec.json.encode(written), "application/json")

    def rendered() -> Page:
        html = render_template("docs.html", api=written, dumps=lambda value: json.dumps(value, indent=2))
        return Page(html.encode(), "text/html; charset=utf-8", _POLICY)

    # Rendering takes as long as four checks, so it is done once, and not before anybody asks for it.
    shown = SingleFlight(rendered)

    @docs.get("/openapi.json")
    def openapi() -> Response:
        return encoded.response()

    @docs.get("/docs")
    def page() -> Response:
        return shown().response()

    return docs
