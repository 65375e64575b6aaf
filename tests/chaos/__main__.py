"""`python -m tests.chaos --steps 1000000 --seed N`: the simulation, until so many steps or a broken promise."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.chaos.simulation.runner import play, shortest, simulate, told
from tests.chaos.simulation.scenario import draw


def main() -> int:
    """Gives 0 where every promise held, 1 where one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", default=None, help="drawn, and printed, where it is not given")
    parser.add_argument("--scenario", default=None, help="one scenario alone, as a failure names it, with its trace")
    parser.add_argument("--sql", action="store_true", help="the real SQL of the lease and the heartbeats, throughout")
    parser.add_argument("--files", action="store_true", help="the real queue's file, throughout")
    parser.add_argument("--first", action="store_true", help="stop at the first failure, without the shortest trace")
    given = parser.parse_args()
    if given.scenario is not None:
        run = play(draw(given.scenario, sql=given.sql, files=given.files), keep_trace=True)
        print("\n".join(told(shortest(run) if run.violation and not given.first else run)))
        return 1 if run.violation else 0
    seed = given.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    more = {"sql": given.sql, "files": given.files, "search": not given.first}
    tally = simulate(seed, given.steps, lambda line: print(line, flush=True), **more)
    print("\n".join(tally.lines()))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
