"""A node of one worker, as on the smallest machine of a host: its memory without a call, and with all there is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.bench.calls import GOOD
from tests.bench.copying import is_copied
from tests.bench.machine import Tree
from tests.bench.plan import Plan
from tests.bench.sample import measure
from tests.bench.stage import PATH, Stage
from tests.support.processes import ServerProcess, until

_PATIENCE_S = 180.0
#: After its start a node imports and connects what it needs now and then.
_SETTLE_S = 15.0
#: So many looks at the memory in a window of load, the highest of which counts.
_WINDOWS = 4


@dataclass
class Small:
    """Memory (PSS) in MB: `idle_mb` with few licenses and no calls, `loaded_mb` with `licenses` of them and so many
    connections; `parts`: the same by process, with the names of the processes.
    """

    licenses: int
    connections: int
    idle_mb: float = 0.0
    loaded_mb: float = 0.0
    parts: dict[str, list[float]] = field(default_factory=dict)


def measured(small: Stage, large: Stage, plan: Plan) -> Small:
    """One node on each stage, one after the other."""
    found = Small(plan.many, plan.few)
    with small.node(WEB_CONCURRENCY="1") as node:
        node.wait_until_answers("/readyz", _PATIENCE_S)
        time.sleep(min(_SETTLE_S, 5 * plan.seconds))
        found.idle_mb = Tree(node.process).pss_mb()
        found.parts["idle"] = _parts(node)
    disk = large.new_disk()
    with large.node(disk=disk, WEB_CONCURRENCY="1") as node:
        large.first_verdict(node)
        until(lambda: is_copied(disk, plan.many), "a complete copy", _PATIENCE_S)
        for _ in range(_WINDOWS):
            measure(large, node, PATH, plan.few, plan.seconds, GOOD)
            found.loaded_mb = max(found.loaded_mb, Tree(node.process).pss_mb())
        found.parts["loaded"] = _parts(node)
    return found


def _parts(node: ServerProcess) -> list[float]:
    """Of the master, and of each process below it in the order in which they were started."""
    processes = [node.process, *sorted(node.process.children(recursive=True), key=lambda process: process.pid)]
    return [round(Tree.own_pss_mb(process), 1) for process in processes]
