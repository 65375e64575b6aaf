"""`make bench`: prints the table and the targets; `--readme` writes them into README.md, `--quick` is a short run.

`--only isolated` measures that part alone, to be looked at while one works on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.plan import QUICK, Plan
from tests.bench.report import render, write_readme
from tests.bench.run import PARTS, run

_README = Path(__file__).resolve().parents[2] / "README.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: about a minute, and less to be trusted")
    parser.add_argument("--readme", action="store_true", help="write the result into README.md, between its markers")
    parser.add_argument("--only", choices=PARTS, help="one part of the run")
    options = parser.parse_args()
    if options.only and options.readme:
        parser.error("README.md has the whole of a run")
    text = render(run(QUICK if options.quick else Plan(), [options.only] if options.only else PARTS))
    print(text)
    if options.readme:
        write_readme(_README, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
