"""`python -m license_admin`: the command line."""

from __future__ import annotations

import sys

_EXTRA = 'license-admin: {} is missing. Install it with: pip install "protecao-license-client[admin]"'


def run() -> int:
    """Runs one command; gives its exit status. Says so where the extra is not installed."""
    try:
        from license_admin.cli import main
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        print(_EXTRA.format(missing), file=sys.stderr)
        return 2
    return main()


if __name__ == "__main__":
    sys.exit(run())
