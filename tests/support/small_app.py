"""A small application on `api.server`, for the tests of the processes. `python -m tests.support.small_app`; its
options come as JSON in OPTIONS; workers do not start while HOLD_FILE exists, and fail to while BREAK_FILE does."""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from wsgiref.types import WSGIEnvironment

import psutil
from flask import Flask, Response, jsonify, request

from api.server import DRAINING, LEAVE, WORKERS_ENDED, Application, Companion, ServerOptions, serve
from api.server.application import Reply


def make_app() -> Flask:
    """Routes that are quick, slow, held, stuck, streamed, or tell who answers."""
    while _is_there("HOLD_FILE"):
        time.sleep(0.02)
    if _is_there("BREAK_FILE"):
        raise RuntimeError("told to fail")
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024

    @app.get("/livez")
    @app.get("/pid")
    def pid() -> Response:
        return jsonify(pid=os.getpid(), granian=os.getppid())

    @app.get("/readyz")
    def ready() -> tuple[str, int]:
        return "", 503 if request.environ[DRAINING] else 200

    @app.get("/slow")
    def slow() -> Response:
        for _ in range(
            round(float(request.args["s"]) * 20)
        ):  # in steps: work does not go on while the host stands still
            time.sleep(0.05)
        return jsonify(done=True)

    @app.get("/held")
    def held() -> Response:
        while Path(request.args["while"]).exists():
            time.sleep(0.02)
        return jsonify(done=True)

    @app.get("/stuck")
    def stuck() -> str:
        threading.Event().wait()
        return ""

    @app.get("/seize")
    def seize() -> str:
        pattern = __import__("re").compile(r"(a+)+$")  # one call that keeps the interpreter's lock for years
        return str(pattern.match("a" * 60 + "b"))

    @app.get("/stream")
    def stream() -> Response:
        count = int(request.args["n"])

        def lines() -> Iterator[str]:
            for number in range(count):
                time.sleep(0.02)
                yield f"{number}\n"

        return Response(lines(), mimetype="text/csv")

    @app.get("/flood")
    def flood() -> Response:
        return Response((b"x" * 100_000 for _ in range(int(request.args["n"]))), mimetype="text/csv")

    @app.get("/large")
    def large() -> bytes:
        return b"x" * 3_000_000

    @app.get("/broken")
    def broken() -> Response:
        def lines() -> Iterator[str]:
            yield "first\n"
            raise RuntimeError("told to fail")

        return Response(lines(), mimetype="text/csv")

    @app.post("/echo")
    def echo() -> Response:
        return jsonify(size=len(request.get_data()))

    return app


def _is_there(name: str) -> bool:
    """Whether the file exists that the environment names so."""
    return bool(os.environ.get(name)) and Path(os.environ[name]).exists()


class Later:
    """Answers some paths without a thread for each request: what was begun by then, each `LATER_S` seconds.

    `/later`: once; `/twice`: and again; `/raises`: not at all; `/never`: neither, and it hangs on that.
    """

    def __init__(self) -> None:
        self._begun: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._never = math.inf
        threading.Thread(target=self._answer, daemon=True).start()

    def begin(self, environ: WSGIEnvironment, raw: bytes, answer: Callable[[Reply], None]) -> bool:
        path = environ["PATH_INFO"]
        if path == "/raises":
            raise RuntimeError("told to fail")
        if path == "/never":
            self._never = min(self._never, time.monotonic())
            return True
        for _ in range({"/later": 1, "/twice": 2}.get(path, 0)):
            self._begun.put(lambda: answer(Reply(200, [], json.dumps({"size": len(raw), "pid": os.getpid()}).encode())))
        return path in ("/later", "/twice")

    def longest(self, now: float) -> float:
        return max(0.0, now - self._never)

    def _answer(self) -> None:
        while True:
            answer = self._begun.get()
            time.sleep(float(os.environ.get("LATER_S", "0")))
            answer()


def companion() -> int:
    """Writes its id to COMPANION_FILE; a farewell when it is told to end; when told that no worker is left, who is."""
    path = Path(os.environ["COMPANION_FILE"])
    asked, alone = threading.Event(), threading.Event()
    signal.signal(LEAVE, lambda *_: asked.set())
    signal.signal(WORKERS_ENDED, lambda *_: alone.set())
    path.write_text(f"up {os.getpid()}")
    asked.wait()
    path.write_text("resigned")
    alone.wait()
    others = [each.pid for each in psutil.Process(os.getppid()).children(recursive=True) if each.pid != os.getpid()]
    path.write_text(f"alone {others}")
    return 0


def main() -> int:
    """Serve as OPTIONS say."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    given = json.loads(os.environ.get("OPTIONS", "{}"))
    options = ServerOptions(host=os.environ["HOST"], port=int(os.environ["PORT"]), **given)
    companions = [Companion("supervisor", companion)] if "COMPANION_FILE" in os.environ else []
    return serve(options, lambda: Application(make_app(), Later()), companions)


if __name__ == "__main__":
    raise SystemExit(main())
