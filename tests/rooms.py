"""How the rooms of `api/` and `failover/` hang together: how many there are, how many stand in circles, what runs up.

A room is a folder, or a file that lies beside folders. An import runs up where it goes from a lower layer of
pyproject.toml's contract to a higher one. `python -m tests.rooms` prints the counts, `--arrows` each arrow as well.
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import grimp
import networkx

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("api", "failover")

Arrows = Counter[tuple[str, str]]


def arrows() -> Arrows:
    """How many imports go from one room to another."""
    graph = grimp.build_graph(*_PACKAGES)
    counted = Arrows()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            counted[_room(module), _room(imported)] += 1
    return Arrows({ends: number for ends, number in counted.items() if ends[0] != ends[1]})


def circles(counted: Arrows) -> list[set[str]]:
    """Rooms that import each other, in however many steps."""
    return [
        rooms for rooms in networkx.strongly_connected_components(networkx.DiGraph(list(counted))) if len(rooms) > 1
    ]


def upward(counted: Arrows) -> Arrows:
    """What goes from a lower layer to a higher one."""
    height = _heights()
    return Arrows({(a, b): number for (a, b), number in counted.items() if height[_top(a)] < height[_top(b)]})


def _room(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    room = module if path.is_dir() or module.count(".") == 1 else module.rpartition(".")[0]
    return "failover" if room.startswith("failover") else room


def _top(room: str) -> str:
    return room.split(".")[1] if "." in room else room


def _heights() -> defaultdict[str, int]:
    """Of each layer, from 0 for the highest downwards. `failover` stands below all of them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next((one["layers"] for one in contracts if one["type"] == "layers"), [])
    heights = {name.strip(): -at for at, layer in enumerate(layers) for name in layer.split("|")}
    return defaultdict(lambda: -len(layers), heights)


def main() -> None:
    counted = arrows()
    rooms = {room for ends in counted for room in ends}
    in_circles = circles(counted)
    print(f"rooms: {len(rooms)}, arrows between them: {len(counted)} ({counted.total()} imports)")
    print(f"circles: {len(in_circles)}, of {sum(map(len, in_circles))} rooms")
    print(f"imports that run up: {upward(counted).total()}")
    for found in in_circles:
        print("  circle:", ", ".join(sorted(found)))
    if "--arrows" in sys.argv:
        for (a, b), number in sorted(counted.items()):
            print(f"  {a} -> {b}: {number}")


if __name__ == "__main__":
    main()
