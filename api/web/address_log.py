"""The log of client addresses, at DEBUG: what proxies say of a request, and the address that the node takes from it."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from api import logs

_LOG = logs.get("web")
#: A client may write 64 KB there. What proxies append stands at the end.
_LONGEST = 500


class AddressLog:
    """WSGI middleware inside werkzeug's ProxyFix; logs each request's addresses and passes it on unchanged."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Fields: `client` counts for limits, `peer` opened the connection, `forwarded` is the end of the header."""
        client = environ.get("REMOTE_ADDR")
        peer = environ.get("werkzeug.proxy_fix.orig", environ).get("REMOTE_ADDR")
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")[-_LONGEST:]
        _LOG.debug("client address", extra={"client": client, "peer": peer, "forwarded": forwarded})
        return self._application(environ, start_response)
