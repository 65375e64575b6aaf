"""A client's call as it came in, whichever server took it: read from the WSGI environ, before anything is checked."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

import msgspec

from api.checks.schemas import ClientBody


class ClientRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `path` and `query` as they are signed and sent; a header that was not sent is None."""

    method: str
    path: str
    query: str = ""
    address: str = ""
    raw: bytes
    api_key: str | None = None
    request_id: str | None = None
    timestamp: str | None = None
    signature: str | None = None


def client_request_from(environ: WSGIEnvironment, path: str, raw: bytes) -> ClientRequest:
    """The call in `environ`; `path` and the body have been taken from there already."""
    find = environ.get
    return ClientRequest(
        method=environ["REQUEST_METHOD"],
        path=path,
        query=find("QUERY_STRING", ""),
        address=find("REMOTE_ADDR", ""),
        raw=raw,
        api_key=find("HTTP_X_API_KEY"),
        request_id=find("HTTP_X_REQUEST_ID"),
        timestamp=find("HTTP_X_TIMESTAMP"),
        signature=find("HTTP_X_SIGNATURE"),
    )


class AdmittedCall(msgspec.Struct, frozen=True):
    """A call that was let in."""

    sent: ClientRequest
    body: ClientBody
