"""The first run: a demo license on the embedded ledger, and the ready-made call that returns a signed verdict.

Keys are stored hashed, so the demo's own is kept in `DATA_DIR/demo.json` (0600) with what else the call is made with.
"""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import select

from api.admin.kinds import Kind
from api.cli.context import context_of, copy_in
from api.config.secret_files import FILE_NAME as SECRETS_FILE
from api.config.secret_files import write_private
from api.config.settings import Settings
from api.config.values import ROOT
from api.demo_scripts import lines_to_paste
from api.ledger import tables
from api.ledger.errors import LedgerError
from api.problems import Problem
from api.signing import key_claim
from api.snapshot import require_leave

FILE_NAME = "demo.json"
_ANSWER = "demo-answer.json"
_PRODUCT = "demo"
_POLICY: dict[str, Any] = {"name": "Demo", "floating": True, "max_machines": 3, "entitlements": ["pro"]}

_CALL = r"""
  cd {root}
  (
    demo() {{ sed -n '/^ *"'$1'": "/{{s/^[^:]*: "//;s/",*$//;s/\\\(.\)/\1/g;p;}}' {file}; }}
    call() {{
      id=$(openssl rand -hex 16)
      at=$(date +%s)
      body='{{"key":"'$(demo key)'","nonce":"'$id'","product":"demo","fingerprint":"demo-machine"}}'
      signature=$(printf '%s' "$id.$at.POST /v1/$1.$body" |
        openssl dgst -sha256 -hmac "$(demo shared_secret)" -binary | openssl base64)
      curl -sS {url}/v1/$1 -H 'Content-Type: application/json' -H "X-API-Key: $(demo api_key)" \
        -H "X-Request-Id: $id" -H "X-Timestamp: $at" -H "X-Signature: v1,$signature" --data-raw "$body"
    }}
    call activate > /dev/null
    call validate | (umask 077; tee {answer}) && echo
  )
"""
_VERIFY = """
This verifies the answer:

  {flask} keys verify {answer} --jwks {url}/.well-known/jwks.json
"""


def announce(settings: Settings) -> None:
    """Prints what one needs to know of a node that is about to serve; with `PROTECAO_DEMO` makes the demo first.

    To be called before the server forks. Nothing that goes wrong here keeps the node from serving.
    """
    lines = [f"This node starts on {settings.host}, port {settings.port}; {_places(settings)}"]
    if settings.disk == "ephemeral":
        lines.append(
            f"WARNING: {settings.data_dir} does not outlive a restart of this host: what is kept there is lost."
        )
    if settings.demo and settings.embedded:
        lines += _demo(settings)
    # Flushed, or every child that is forked from here would print it again.
    print("\n".join(lines), flush=True)


def prepare(settings: Settings) -> Path:
    """Makes the demo's product, policy and license where they are missing; gives the file that the call reads.

    Raises `LedgerError`, `Problem`, `OSError` and, for a damaged file, `ValueError`.
    """
    path = settings.data_dir / FILE_NAME
    key = _kept_key(path)
    _ensure_license(settings, key)
    content = {"key": key, "api_key": settings.api_keys[0], "shared_secret": settings.shared_secrets[0]}
    write_private(path, json.dumps(content, indent=2) + "\n", replace=True)
    return path


def ready_made_call(settings: Settings, file: Path) -> str:
    """Lines for a shell: they sign a call now, send it and keep the answer; and the line that verifies that."""
    shown = {
        "root": shlex.quote(str(ROOT)),
        "url": f"http://127.0.0.1:{settings.port}",
        "file": _from_root(file),
        "answer": _from_root(file.with_name(_ANSWER)),
        "flask": _from_root(Path(sys.executable).parent.resolve() / "flask"),
    }
    return _CALL.format(**shown) + _VERIFY.format(**shown)


def _demo(settings: Settings) -> list[str]:
    try:
        file = prepare(settings)
    except (LedgerError, Problem, OSError, ValueError) as error:
        return [f"There is no demo license this time: {error}"]
    key = f"The demo's license key, for where a program asks for it, is in {_from_root(file)}."
    call = ["", "In another terminal, this makes a signed call with the demo license:", ready_made_call(settings, file)]
    return [*call, lines_to_paste(settings), key]


def _places(settings: Settings) -> str:
    kept = settings.data_dir / SECRETS_FILE
    # Where the secrets are set in the environment nobody has looked at this file yet, and it may be anything.
    own = kept.is_file() and settings.admin_token in kept.read_text(encoding="utf-8", errors="replace")
    secrets_at = f"its secrets, the admin token among them, are in {kept}" if own else "its secrets are as set"
    return f"its data is in {settings.data_dir}, {secrets_at}."


def _from_root(path: Path) -> str:
    """The path as a shell takes it at the repository's root."""
    return shlex.quote(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path))


def _kept_key(path: Path) -> str:
    """The demo's license key: the one in the file, else a new one that is in the file when this returns."""
    if not path.exists():
        key = "-".join(["DEMO", *(secrets.token_hex(4).upper() for _ in range(4))])
        write_private(path, json.dumps({"key": key}, indent=2) + "\n")
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        raise ValueError(f"{path} holds no demo key; delete it, and a new one is made")
    return str(found["key"])


def _ensure_license(settings: Settings, key: str) -> None:
    with context_of(settings) as context, copy_in(settings) as copy:
        # One demo license would make an empty ledger look like the one that is meant.
        require_leave(copy, context.database)
        licenses = tables.licenses.c
        with context.database.reading() as connection:
            if connection.execute(select(licenses.id).where(licenses.key_hash == key_claim(key))).first():
                return
        resources = context.resources
        if not resources.page(Kind.PRODUCT, {"product": _PRODUCT})["items"]:
            resources.create(Kind.PRODUCT, {"code": _PRODUCT, "name": "Demo"})
        policies = resources.page(Kind.POLICY, {"product": _PRODUCT, "q": _POLICY["name"]})["items"]
        policy = policies[0] if policies else resources.create(Kind.POLICY, {"product": _PRODUCT, **_POLICY})
        resources.create(Kind.LICENSE, {"policy": policy["id"], "name": "Demo", "key": key})
