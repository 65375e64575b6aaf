"""What a Windows PC has not: modules of Unix, its folders and file modes. The program works without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

_BLOCKED = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
"""
_SOURCE = str(ROOT / "clients" / "python" / "src")


def run(code: str, folder: Path, *, encoding: str = "cp850", cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    """A Python without the modules of Unix, whose console has this encoding."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": _SOURCE, "PYTHONIOENCODING": encoding, "HOME": str(folder)}
    return subprocess.run([sys.executable, "-c", _BLOCKED + code], cwd=cwd, env=env, capture_output=True, timeout=120)


def test_secrets_are_made_without_the_modules_of_unix(tmp_path: Path) -> None:
    code = "from license_admin.cli import main\nsys.exit(main(['secrets', '--host', 'railway', '--out', r'{}']))"
    done = run(code.format(tmp_path / "segredos da loja \u00e7.txt"), tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "NODE_ID=railway-1" in (tmp_path / "segredos da loja \u00e7.txt").read_text(encoding="utf-8")


def test_flask_secrets_starts_without_them_too(tmp_path: Path) -> None:
    code = "from flask.cli import main\nsys.argv = ['flask', 'secrets', '--out', r'{}']\nmain()"
    done = run(code.format(tmp_path / "out.txt"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"Written to" in done.stdout
    assert "SIGNING_KEY=" in (tmp_path / "out.txt").read_text(encoding="ascii")
    other = run("from flask.cli import main\nsys.argv = ['flask', 'db', 'check']\nmain()", tmp_path)
    assert other.returncode == 2
    assert b"license-admin" in other.stderr
    assert b"Traceback" not in other.stderr


def test_the_folders_are_those_of_windows(tmp_path: Path) -> None:
    code = """
import os
from license_admin import config
os.environ["APPDATA"] = "C:/Users/Jos\\u00e9/AppData/Roaming"
sys.platform = "win32"
print(config.default_file())
"""
    done = run(code, tmp_path, encoding="utf-8")
    shown = done.stdout.decode().strip()
    assert shown == "C:/Users/Jos\u00e9/AppData/Roaming/protecao-license/license-admin.toml", done


def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path) -> None:
    done = run("sys.modules['rich'] = None\nfrom license_admin.__main__ import run\nsys.exit(run())", tmp_path)
    assert done.returncode == 2
    assert b"protecao-license-client[admin]" in done.stderr
