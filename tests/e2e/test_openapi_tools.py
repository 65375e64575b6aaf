"""The document under the tools that users have: two linters' recommended rules, and three generators of clients.

Those of npm are pinned in tests/openapi/package-lock.json and installed there once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from api.version import VERSION
from api.web.openapi import ADMIN_ROUTES, CLIENT_ROUTES, document
from tests.support.processes import ROOT

TOOLS = ROOT / "tests" / "openapi"
_ROUTES = CLIENT_ROUTES + ADMIN_ROUTES
_TIMEOUT_S = 900


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_text(json.dumps(document(_ROUTES, VERSION)))
    return path


def components() -> dict[str, Any]:
    return dict(document(_ROUTES, VERSION)["components"]["schemas"])


@pytest.fixture(scope="module")
def npm_tools() -> Path:
    """The folder of the programs, installed as the lockfile says."""
    npm = shutil.which("npm")
    if npm is None:
        if os.environ.get("CI"):
            pytest.fail("NPM IS MISSING: .ci/run installs it")
        pytest.skip("NPM IS MISSING: no linter and no generator of TypeScript was run")
    modules, lock = TOOLS / "node_modules", TOOLS / "package-lock.json"
    with FileLock(TOOLS / ".install.lock"):
        installed = modules / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            run([npm, "ci", "--prefer-offline"])
    return modules / ".bin"


def run(command: list[str | Path]) -> str:
    """What a program prints that has to succeed."""
    done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_that_redocly_recommends_hold(npm_tools: Path, written: Path) -> None:
    run(["node", TOOLS / "lint.mjs", written])


def test_the_rules_that_spectral_recommends_hold(npm_tools: Path, written: Path) -> None:
    run([npm_tools / "spectral", "lint", "--ruleset", TOOLS / ".spectral.yaml", "--fail-severity", "hint", written])


def test_openapi_python_client_makes_a_function_of_each_call_and_a_class_of_each_shape(
    written: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("post_hooks: []\n")
    made = tmp_path / "made_client"
    program = Path(sys.executable).with_name("openapi-python-client")
    printed = run([program, "generate", "--path", written, "--output-path", made, "--meta", "none", "--config", config])
    assert not re.search(r"warning|unable|skipp|unsupported|error", printed, re.IGNORECASE), printed
    calls = {path.stem for path in made.glob("api/*/*.py")} - {"__init__"}
    assert calls == {route.name for route in _ROUTES}
    models = (made / "models" / "__init__.py").read_text()
    assert {name for name in components() if f'"{name}",' not in models} == set()
    run([sys.executable, "-W", "error", "-c", _USE.format(parent=str(tmp_path))])


#: Two calls, as the generated client would send them.
_USE = """
import sys
sys.path.insert(0, {parent!r})
from made_client.api.client_calls import validate
from made_client.api.licenses import create_license
from made_client.models import NewLicenseBody, ValidateBody
sent = validate._get_kwargs(body=ValidateBody(key="DEMO-KEY-0000", nonce="n" * 16), x_request_id="request-1")
assert (sent["method"], sent["url"], sent["json"]["key"]) == ("post", "/v1/validate", "DEMO-KEY-0000"), sent
assert sent["headers"]["X-Request-Id"] == "request-1", sent
sent = create_license._get_kwargs(body=NewLicenseBody(policy="a"), idempotency_key="k" * 8)
assert sent["json"] == dict(policy="a") and sent["headers"]["Idempotency-Key"] == "k" * 8, sent
"""


@pytest.mark.slow
def test_the_typescript_of_both_generators_has_each_call_and_shape_and_compiles(
    npm_tools: Path, written: Path, tmp_path: Path
) -> None:
    types, hey = tmp_path / "schema.ts", tmp_path / "hey"
    run([npm_tools / "openapi-typescript", written, "--output", types])
    run([npm_tools / "openapi-ts", "--input", written, "--output", hey])
    described, functions, shapes = (path.read_text() for path in (types, hey / "sdk.gen.ts", hey / "types.gen.ts"))
    for route in _ROUTES:
        assert f"{route.name}: {{" in described, route.name
        assert f"export const {_camel(route.name)} = " in functions, route.name
    for name in components():
        assert re.search(rf"^ {{8}}{name}: ", described, re.MULTILINE), name
        assert f"export type {name} = " in shapes, name
    (tmp_path / "use.ts").write_text(_TYPED)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--moduleResolution", "bundler"]
    run([npm_tools / "tsc", *options, "--module", "esnext", "--lib", "es2022,dom,dom.iterable", tmp_path / "use.ts"])


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


_TYPED = """
import type { components } from "./schema";
import { createLicense, validate } from "./hey";

type Answer = components["schemas"]["Answer"];
type Claims = components["schemas"]["VerdictClaims"];

export async function example(): Promise<[Answer | undefined, Claims["nonce"]]> {
  const { data } = await validate({ body: { key: "DEMO-KEY-0000", nonce: "0123456789abcdef" } });
  await createLicense({ body: { policy: "a" }, headers: { "Idempotency-Key": "12345678" } });
  // @ts-expect-error: a license needs a policy
  await createLicense({ body: { name: "N" } });
  return [data, data?.nonce ?? ""];
}
"""
