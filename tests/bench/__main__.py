"""`make bench`: prints the table and the targets; `--write` puts them into docs/benchmarks.md, `--quick` is short.

`--only isolated` measures that part alone, to be looked at while one works on it. `--idle` measures for some minutes
what nodes cost that have no calls, with a month on each plan.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench import plans
from tests.bench.plan import QUICK, Plan
from tests.bench.report import BEGIN, END, IDLE_BEGIN, IDLE_END, render, write_between
from tests.bench.run import PARTS, run, run_idle

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "benchmarks.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: about a minute, and less to be trusted")
    parser.add_argument("--only", choices=PARTS, help="one part of the run")
    parser.add_argument("--idle", action="store_true", help="what nodes cost without calls: about seven minutes")
    parser.add_argument("--write", action="store_true", help="write the result into docs/benchmarks.md")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("docs/benchmarks.md has the whole of a run")
    plan = QUICK if options.quick else Plan()
    if options.idle:
        results = run_idle(plan)
        assert results.idle is not None
        text = render(results) + "\n" + plans.month(results.idle)
    else:
        text = render(run(plan, [options.only] if options.only else PARTS))
    print(text)
    if options.write:
        write_between(_PAGE, *((IDLE_BEGIN, IDLE_END) if options.idle else (BEGIN, END)), text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
