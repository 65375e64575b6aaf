"""`make bench`: prints the table and the targets; `--readme` writes them into README.md, `--quick` is a short run."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.report import render, write_readme
from tests.bench.run import Plan, run

_README = Path(__file__).resolve().parents[2] / "README.md"
_QUICK = Plan(rounds=2, seconds=1.5, warm_up_s=1.5, starts=2, syncs=100)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: about a minute, and less to be trusted")
    parser.add_argument("--readme", action="store_true", help="write the result into README.md, between its markers")
    options = parser.parse_args()
    text = render(run(_QUICK if options.quick else Plan()))
    print(text)
    if options.readme:
        write_readme(_README, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
