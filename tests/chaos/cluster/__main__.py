"""`python -m tests.chaos.cluster`: makes faults, prints figures as JSON, ends with 1 if a promise was broken."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.cluster.attack import Attackers
from tests.chaos.cluster.kinds import FAULTS
from tests.chaos.cluster.run import RATE, run

_FULL, _FULL_PAIRS, _SHORT_PAIRS = 200, 100, 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cluster", description=__doc__)
    parser.add_argument("--short", action="store_true", help="every kind of fault once, as briefly as shows anything")
    parser.add_argument("--faults", type=int, help=f"how many single ones (default {_FULL}; else every kind once)")
    parser.add_argument("--pairs", type=int, help=f"how many pairs that overlap (default {_FULL_PAIRS}; with --only 0)")
    parser.add_argument("--only", action="append", choices=FAULTS, default=[], help="only these kinds; may be repeated")
    parser.add_argument("--rate", type=float, default=RATE, help=f"checks a second (default {RATE:g})")
    parser.add_argument("--attackers", action="store_true", help="then the same faults again, with attackers at work")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--json", type=Path, help="where the figures go besides standard output")
    parser.add_argument("--folder", type=Path, help="where the history and the nodes' logs stay; must be new")
    given = parser.parse_args()
    print(f"seed {given.seed}", file=sys.stderr, flush=True)
    faults, pairs = _how_many(given)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        # The database runs as a user of its own, and root's temporary folders are closed to it.
        folder.chmod(0o711)
        what = {"faults": faults, "pairs": pairs, "only": tuple(given.only), "short": given.short, "rate": given.rate}
        found = run(folder, seed=given.seed, loads=[Attackers] if given.attackers else [], **what)
    figures = {"seed": given.seed, **found.figures}
    text = json.dumps(figures, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    for line in found.broken:
        print(line, file=sys.stderr)
    return 1 if found.broken else 0


def _how_many(given: argparse.Namespace) -> tuple[int | None, int]:
    """Single faults (None: every kind once) and pairs: as they are given, or as the form of the run has them."""
    if given.only:
        usual: tuple[int | None, int] = None, 0
    else:
        usual = (None, _SHORT_PAIRS) if given.short else (_FULL, _FULL_PAIRS)
    faults = usual[0] if given.faults is None else given.faults
    return faults, usual[1] if given.pairs is None else given.pairs


if __name__ == "__main__":
    sys.exit(main())
