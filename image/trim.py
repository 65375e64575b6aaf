"""Makes the image's packages small: run by the first stage of the Dockerfile, beside the application, by its Python.

Wheels carry what a node never loads: tests, debug symbols, other databases' dialects, an OpenSSL of their own. Of 77 MB
in packages 50 stay, the compiled modules included, without which a node on a small machine takes four times as long to
start.
"""

from __future__ import annotations

import compileall
import importlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
#: Folders that no module of a node is imported from, and files that describe a package to other tools.
UNUSED = (
    *("*/tests", "*/testing", "sqlalchemy/dialects/mssql", "sqlalchemy/dialects/mysql", "sqlalchemy/dialects/oracle"),
    *("sqlalchemy/orm", "sqlalchemy/ext/[adhimos]*", "pycparser", "*.dist-info/sboms", "**/*.pyi", "**/*.px[dy]"),
)
#: The entry points of all processes of a node and of its command line: what they import is all that is ever run.
ENTRIES = ("api.app", "api.server", "api.supervisor.companion", "api.cli.root", "alembic.command", "prometheus_client")


def main() -> None:
    """Raises where a step is not possible: an image that would not start is not built."""
    remove_unused()
    strip_symbols()
    share_openssl()
    compile_imported()


def remove_unused() -> None:
    for pattern in UNUSED:
        for path in SITE.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def strip_symbols() -> None:
    """Takes debug symbols out of extension modules; libraries in `*.libs`, which are patched, stay as they are."""
    extensions = [path for path in SITE.rglob("*.so") if not path.parent.name.endswith(".libs")]
    subprocess.run(["strip", "--strip-unneeded", *extensions], check=True)  # noqa: S603, S607 - the image's own


def share_openssl() -> None:
    """Lets libpq use the system's OpenSSL 3, whose updates come with the base, in place of the wheel's copy of it."""
    listed = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    for name in ("libssl", "libcrypto"):
        system = re.search(rf"{name}\.so\.3 \(.*\) => (\S+)", listed)
        [own] = (SITE / "psycopg2_binary.libs").glob(f"{name}-*.so.3")
        if system is None:
            raise SystemExit(f"the base image has no {name}.so.3")
        own.unlink()
        own.symlink_to(Path(system[1]).resolve())


def compile_imported() -> None:
    """Compiles all modules that a node imports. Of packages the compiled form alone is kept: both would be too much."""
    sys.path.insert(0, str(Path.cwd()))
    for name in ENTRIES:
        importlib.import_module(name)
    files = {Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    for source in sorted(path for path in files if path.suffix == ".py" and path.is_relative_to(SITE)):
        if not compileall.compile_file(source, quiet=1, legacy=True):
            raise SystemExit(f"{source} cannot be compiled")
        source.unlink()
    for folder in ("api", "failover"):
        compileall.compile_dir(folder, quiet=1)


if __name__ == "__main__":
    main()
