"""A call of `/livez`: what its answer says of the node, and that no answer can hold the caller up."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from api.stats.presence import Presence
from api.supervisor.duties.livez import ask


@contextlib.contextmanager
def answering(*pieces: bytes, pause_s: float = 0.0, calls: list[bytes] | None = None) -> Iterator[str]:
    """A server that sends these pieces to each caller, with a pause between; gives its address."""
    stop = threading.Event()

    def serve(server: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    request = connection.recv(4096)
                    if calls is not None:
                        calls.append(request)
                    for piece in pieces:
                        connection.sendall(piece)
                        stop.wait(pause_s)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Presence.ISOLATED),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Presence.ISOLATED),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Presence.DEAD),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Presence.DEAD),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", Presence.UNREACHABLE),
        (b"nonsense\r\n\r\n", Presence.UNREACHABLE),
        (b"A" * 5000, Presence.UNREACHABLE),
        (b"", Presence.UNREACHABLE),
    ],
)
def test_the_status_alone_says_what_is_there(answer: bytes, found: Presence) -> None:
    with answering(answer) as url:
        assert ask(url, 5.0) is found


def test_it_asks_for_livez_below_the_nodes_own_path_and_says_who_asks() -> None:
    calls: list[bytes] = []
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", calls=calls) as url:
        assert ask(f"{url}/protecao", 5.0) is Presence.ISOLATED
    [request] = calls
    assert request.startswith(b"GET /protecao/livez HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nUser-Agent: protecao/" in request


def test_a_redirect_leads_nowhere() -> None:
    reached: list[bytes] = []
    with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n", calls=reached) as other,
        answering(f"HTTP/1.1 302 Found\r\nLocation: {other}/livez\r\n\r\n".encode()) as url,
    ):
        assert ask(url, 5.0) is Presence.UNREACHABLE
    assert reached == []


def test_a_server_that_drips_or_is_silent_is_given_up_in_time() -> None:
    for pieces in ([b"H"] * 200, [b""] * 200):
        with answering(*pieces, pause_s=0.05) as url:
            began = time.monotonic()
            assert ask(url, 0.5) is Presence.UNREACHABLE
            assert time.monotonic() - began < 5.0


def test_nothing_there_is_dead_and_a_name_that_is_not_known_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert ask(f"http://127.0.0.1:{port}", 5.0) is Presence.DEAD
    assert ask("http://no-such-host.invalid", 5.0) is Presence.UNREACHABLE
    assert ask("http://127.0.0.1:99999", 5.0) is Presence.UNREACHABLE


def test_plain_text_where_tls_was_to_be_is_no_node() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert ask(url.replace("http://", "https://"), 5.0) is Presence.UNREACHABLE
