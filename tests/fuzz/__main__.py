"""`make fuzz`: starts a node and sends it generated calls until at least so many cases were tried.

No answer may be a 5xx and none may be one that the document does not know. Exit status 0 when all of that holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import requests

from tests.support.processes import ROOT, ServerProcess

_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
_PER_OPERATION = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        return fuzz(Path(data), arguments.cases, arguments.seed)


def fuzz(data: Path, cases: int, seed: int) -> int:
    """Rounds of generated calls at one node, each with a seed of its own, until `cases` were tried."""
    env = {"DATA_DIR": str(data), "RATE_LIMIT": "1000000/minute", "LOG_LEVEL": "WARNING"}
    with ServerProcess.python("app.py", env=env, cwd=ROOT / "api") as node:
        node.wait_until_answers("/readyz")
        secrets = json.loads((data / "secrets.json").read_text())
        fuzz_env = {
            "FUZZ_API_KEY": secrets["API_KEY"],
            "FUZZ_SECRET": secrets["SHARED_SECRET"],
            "FUZZ_TOKEN": secrets["ADMIN_TOKEN"],
            **_stock(node.url, secrets["ADMIN_TOKEN"]),
        }
        tried = status = 0
        while tried < cases and status == 0:
            status, count = _round(node.url, fuzz_env, seed, min(cases - tried, cases))
            tried, seed = tried + count, seed + 1
        print(f"{tried} cases, the last round with --seed {seed - 1}: {'failed' if status else 'nothing found'}")
        if "unexpected error" in node.output():
            print(node.output())
            return 1
        return status


def _round(url: str, env: dict[str, str], seed: int, cases: int) -> tuple[int, int]:
    per_operation = max(1, min(_PER_OPERATION, cases // 40))
    options = [f"--max-examples={per_operation}", f"--seed={seed}", f"--checks={_CHECKS}", "--continue-on-failure"]
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", *options]
    environment = {**os.environ, **env, "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([*command, "--workers=2"], env=environment, cwd=ROOT, capture_output=True, text=True)
    generated = re.search(r"(\d+) generated", run.stdout)
    if run.returncode != 0 or generated is None:
        print(run.stdout, run.stderr, sep="\n")
    return run.returncode, int(generated.group(1)) if generated else 0


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
