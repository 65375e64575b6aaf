"""The server's options: where to listen, how much may be at work at once, how long to wait.
Plain values, made by the settings; nothing here reads the environment."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

LEAVE = signal.SIGUSR2
"""What the master sends a child that is to end: SIGTERM, SIGINT and SIGHUP, which others send, are the master's."""
WORKERS_ENDED = signal.SIGUSR1
"""What a companion that is still there is sent when no worker is."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A process that lives beside the workers: started with them, started again when it dies.

    `run` is called in the child, after the fork; its result (None or 0: well) is the exit status. `LEAVE` tells it
    that the server is about to end, and by default ends it at once. One that has to tidy up behind the workers goes
    on until `WORKERS_ENDED`, and has `drain_timeout` from then on. What ends processes is blocked in it.
    """

    name: str
    run: Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Every time is in seconds; counts are per worker process unless said otherwise.

    `places` is how many requests may be at work on threads, each on one of its own; beyond it the answer is a 503 at
    once. What the application begins without a thread takes no place, and neither does `/livez`. `backpressure` is how
    many connections one worker holds open, idle ones included; of those that wait for a request one address (IPv6: its
    /64) may have a quarter. `drain_notice` is how long answers carry `Connection:
    close` before the port closes; `drain_timeout` how long what is in flight may still take after that. A worker that
    is silent, or has something at work, for `hang_timeout` is killed. A request's head must arrive within
    `head_timeout`, its body within `body_timeout`, and an answer that nobody reads is ended after `stall_timeout`;
    `idle_timeout` bounds idle keep-alive connections (longer than the 60 s for which proxies keep theirs).
    `port_advice` ends the message that the port is in use: how to choose another is the application's to say.
    """

    host: str = "0.0.0.0"  # noqa: S104 (the hosts' proxies reach us from outside)
    port: int = 5000
    workers: int = 2
    places: int = 72
    backpressure: int = 1024
    drain_notice: float = 0.5
    drain_timeout: float = 10.0
    hang_timeout: float = 10.0
    head_timeout: float = 10.0
    body_timeout: float = 10.0
    stall_timeout: float = 30.0
    body_limit: int = 64 * 1024
    idle_timeout: float = 75.0
    port_advice: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError where nothing could be served."""
        if self.places < 1:
            raise ValueError("places must be at least 1")
        if self.workers < 1:
            raise ValueError("workers must be at least 1")
