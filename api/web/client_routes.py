"""The calls of clients: `POST /v1/validate` and its kin, each answered with a signed verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Blueprint, Request, Response, request
from flask_cors import CORS

from api.checks.batcher import Done
from api.checks.request import ClientRequest, client_request_from
from api.checks.service import Check
from api.licensing import Act
from api.problems import Problem
from api.runtime import Runtime
from api.web.client_auth import ClientAuth
from api.web.intake import Intake, read_json_body
from api.web.rate_limit import FailureLimiter

PATHS = {f"/v1/{act}": act for act in Act}


class ClientCalls:
    """Answers client calls on `runtime`."""

    def __init__(self, runtime: Runtime, limiter: FailureLimiter) -> None:
        self._runtime = runtime
        self._intake = Intake(ClientAuth(runtime.settings), limiter, runtime.clock)

    def answer(self, act: Act, sent: ClientRequest) -> bytes:
        """The JSON of the verdict. Raises what `problem_responses.problem_of` knows."""
        return Check(self._runtime, act, self._intake.take(act, sent), self._intake).answer()

    def begin(self, act: Act, sent: ClientRequest, done: Done[bytes]) -> bool:
        """Has `done` called once, on any thread, with what `answer` gives or raises. Waits for nothing.

        False where it might have to, or where the call is refused: nothing was done, and `answer` is to be called.
        """
        try:
            check = Check(self._runtime, act, self._intake.looked_at(act, sent), self._intake)
        except Problem:
            return False
        return check.begin(done)

    def longest(self, now: float) -> float:
        """For how many seconds at `now` (monotonic) the oldest of what was begun has been on its way to the ledger."""
        return self._runtime.recorder.longest(now)


def blueprint(calls: ClientCalls, cors_origins: Sequence[str]) -> Blueprint:
    """The client calls as Flask's routes."""
    client = Blueprint("client", __name__)
    if cors_origins:
        CORS(client, origins=list(cors_origins), methods=["POST"], expose_headers=["Retry-After"], max_age=600)
    for path, act in PATHS.items():
        client.add_url_rule(path, act, _view(calls, act), methods=["POST"])
    return client


def _view(calls: ClientCalls, act: Act) -> Callable[[], Response]:
    def view() -> Response:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        body = calls.answer(act, client_request_from(asked.environ, asked.path, read_json_body(asked)))
        return Response(body, content_type="application/json")

    return view
