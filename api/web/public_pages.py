"""Pages that are the same for everybody: made once, and not sent again to those who have them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping

from flask import Flask, Response, request

from api.server.application import PRIVATE

_CACHED = {"Cache-Control": "public, max-age=300"}


def keep_others_private(app: Flask) -> None:
    """Has every answer of `app` that is no such page say that it is for its caller alone: some hold a license key."""

    @app.after_request
    def private(response: Response) -> Response:
        for name, value in PRIVATE:
            response.headers.setdefault(name, value)
        return response


class Page:
    """A body with its ETag."""

    def __init__(self, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._body, self._content_type = body, content_type
        self._headers = {**_CACHED, **(headers or {})}
        self._etag = hashlib.sha256(body).hexdigest()[:32]

    def response(self) -> Response:
        """The page, or 304 where the request names its ETag."""
        answer = Response(self._body, headers=self._headers, content_type=self._content_type)
        answer.set_etag(self._etag)
        answer.make_conditional(request.environ)
        return answer


class SingleFlight:
    """What is made at the first call, and for all who call meanwhile."""

    def __init__(self, make: Callable[[], Page]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._page: Page | None = None

    def __call__(self) -> Page:
        with self._lock:
            if self._page is None:
                self._page = self._make()
            return self._page
