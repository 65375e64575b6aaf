"""The server's processes: a master, Granian with its workers, and companions, kept running and ended in order.
`serve(ServerOptions(...), worker_factory, companions)` is all the application needs."""

from .application import Application, WorkerFactory
from .master import serve
from .options import LEAVE, WORKERS_ENDED, Companion, ServerOptions
from .phase import DRAINING

__all__ = ["DRAINING", "LEAVE", "WORKERS_ENDED", "Application", "Companion", "ServerOptions", "WorkerFactory", "serve"]
