"""`make fuzz`: starts a node and sends it generated calls until at least so many cases were tried.

No answer may be a 5xx and none may be one that the document does not know. Exit status 0 when all of that holds.
With --isolated the node's ledger is stopped first: 503, which the document knows, is then an answer as good as others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests

from api.config.secret_files import generate_secrets
from tests.fuzz.http import fuzz_http
from tests.support.postgres import PostgresServer
from tests.support.processes import ROOT, ServerProcess, until

_CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
_PER_OPERATION = 40
#: The other phases alone make thousands of cases.
_ALL_PHASES_FROM = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--isolated", action="store_true", help="at a node that has lost its ledger")
    parser.add_argument(
        "--http", action="store_true", help="connections with requests that are garbled, cut, pipelined"
    )
    parser.add_argument("--first", type=int, default=0, help="with --http, the number of the first one (default: 0)")
    arguments = parser.parse_args()
    print(f"--seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as data:
        if arguments.http:
            return fuzz_http(Path(data), arguments.cases, arguments.seed, arguments.first)
        return fuzz(Path(data), arguments.cases, arguments.seed, isolated=arguments.isolated)


def fuzz(data: Path, cases: int, seed: int, *, isolated: bool = False) -> int:
    """Rounds of generated calls at one node, each with a seed of its own, until `cases` were tried."""
    secrets = generate_secrets().settings()
    env = {"DATA_DIR": str(data), "RATE_LIMIT": "1000000/minute", "LOG_LEVEL": "ERROR", **secrets}
    checks = _CHECKS if isolated else f"not_a_server_error,{_CHECKS}"
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(PostgresServer()) if isolated else None
        given = {} if ledger is None else {"DATABASE_URL": ledger.url()}
        node = stack.enter_context(ServerProcess.python("app.py", env=env | given, cwd=ROOT / "api"))
        node.wait_until_answers("/readyz")
        fuzz_env = {
            "FUZZ_API_KEY": secrets["API_KEY"],
            "FUZZ_SECRET": secrets["SHARED_SECRET"],
            "FUZZ_TOKEN": secrets["ADMIN_TOKEN"],
            **_stock(node.url, secrets["ADMIN_TOKEN"]),
        }
        if ledger is not None:
            _isolate(node.url, secrets["ADMIN_TOKEN"], ledger)
        tried = status = 0
        while tried < cases and status == 0:
            status, count = _round(node.url, fuzz_env, seed, min(cases - tried, cases), checks)
            tried, seed = tried + count, seed + 1
            print(f"{tried} of {cases} cases", flush=True)
        print(f"{tried} cases, the last round with --seed {seed - 1}: {'failed' if status else 'nothing found'}")
        if "unexpected error" in node.output():
            print(node.output())
            return 1
        return status


def _isolate(url: str, token: str, ledger: PostgresServer) -> None:
    """Stops the ledger once the node's own copy has all of it, and waits until the node has noticed."""
    authorized = {"Authorization": f"Bearer {token}"}

    def stats() -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{url}/stats", headers=authorized, timeout=10).json()
        return answer

    made = stats()["licenses"]["total"]
    until(lambda: stats()["node"]["snapshot"]["licenses"] == made, "a copy of the ledger")
    ledger.stop("immediate")
    until(lambda: requests.get(f"{url}/readyz", timeout=10).json()["ledger"] == "unreachable", "a node that is cut off")


def _round(url: str, env: dict[str, str], seed: int, cases: int, checks: str) -> tuple[int, int]:
    per_operation = max(1, min(_PER_OPERATION, cases // 40))
    options = [f"--max-examples={per_operation}", f"--seed={seed}", f"--checks={checks}", "--continue-on-failure"]
    if cases < _ALL_PHASES_FROM:
        options.append("--phases=fuzzing")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", *options]
    environment = {**os.environ, **env, "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(ROOT)}
    # One worker: in CPython 3.11 two threads that parse Python at once, as Hypothesis does, may get a SystemError.
    run = subprocess.run([*command, "--workers=1"], env=environment, cwd=ROOT, capture_output=True, text=True)
    generated = re.search(r"(\d+) generated", run.stdout)
    if run.returncode != 0 or generated is None:
        print(run.stdout, run.stderr, sep="\n")
    return run.returncode or int(generated is None), int(generated.group(1)) if generated else 0


def _stock(url: str, token: str) -> dict[str, str]:
    """A few licenses under different rules, made by admin calls: their keys, and the ids of all resources."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"

    def make(kind: str, body: dict[str, object]) -> dict[str, str]:
        answer = session.post(f"{url}/v1/{kind}", json=body, timeout=10)
        assert answer.status_code == 201, answer.text
        made: dict[str, str] = answer.json()
        return made

    rules: list[dict[str, object]] = [
        {"floating": True},
        {"max_machines": 3, "floating": True, "overage": "2x", "machine_heartbeat_s": 3600},
        {"duration_days": 30, "check_in_days": 7, "max_uses": 1000, "versions": ">=1,<3", "entitlements": ["pro"]},
        {"duration_days": 1, "expiry_basis": "first_validation", "require_fingerprint": True, "offline_ttl_s": None},
    ]
    made = {"products": [make("products", {"code": f"fuzz-{i}", "name": "Fuzz"}) for i in range(4)]}
    made["policies"] = [make("policies", {"product": "fuzz-0", "name": "p", **rule}) for rule in rules]
    made["licenses"] = [make("licenses", {"policy": policy["id"]}) for policy in made["policies"] * 5]
    made["machines"] = [make("machines", {"license": one["id"], "fingerprint": "f"}) for one in made["licenses"]]
    ids = {kind: [one["id"] for one in several] for kind, several in made.items()}
    return {
        "FUZZ_KEYS": json.dumps([license["key"] for license in made["licenses"]]),
        "FUZZ_IDS": json.dumps(ids),
    }


if __name__ == "__main__":
    raise SystemExit(main())
