"""An HTTP proxy that asks for a user and a password before it answers in a server's place."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.unit.clients.sockets import Conduct, http


def asks_who(user: str, password: str, then: Conduct) -> Conduct:
    """407 without these credentials; with them, what the server that was asked for would do."""
    expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    def conduct(connection: socket.socket, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        if headers["Proxy-Authorization"] == expected:
            then(connection, urlsplit(url).path, body, headers)
        else:
            connection.sendall(http(407, b"", 'Proxy-Authenticate: Basic realm="proxy"', "Connection: close"))

    return conduct
