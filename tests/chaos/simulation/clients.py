"""Clients: each call walks the list of nodes with the contract's time limits until one gives a verdict."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from greenlet import getcurrent

from api.checks.unit_of_work import Operation, Outcome
from api.ids import retry_id
from api.licensing import IDEMPOTENT_ACTS
from tests.chaos.simulation.kernel import Kernel, Owner
from tests.chaos.simulation.process import PROBLEMS, Process
from tests.chaos.simulation.scenario import Item

if TYPE_CHECKING:
    from tests.chaos.simulation.watcher import Watcher

_PASSES = (2.0, 2.0, 5.0)
_PATIENCE_S = 25.0


class Client(Owner):
    """One call, from the first try to the answer."""

    def __init__(
        self, kernel: Kernel, item: Item, seed: str, listen: Callable[[int], Process | None], watcher: Watcher
    ) -> None:
        super().__init__()
        self._kernel, self._item, self._listen, self._watcher = kernel, item, listen, watcher
        self._random = random.Random(f"{seed}/call/{item.number}")
        self._tries = 0

    def walk(self, nodes: int) -> None:
        """The whole call, as a task."""
        order = [(self._item.node - 1 + n) % nodes + 1 for n in range(nodes)]
        began = self._kernel.now
        for patience in _PASSES:
            for node in order:
                if self._ask(node, patience):
                    self._watcher.count("served")
                    return
                if self._kernel.now - began > _PATIENCE_S:
                    break
        self._watcher.count("unserved")

    def _ask(self, node: int, patience: float) -> bool:
        """Whether this node gave a verdict in time."""
        self._kernel.sleep(self._random.uniform(0.001, 0.01), self)
        process = self._listen(node)
        if process is None or not process.ready():
            return False
        operation, me = self._operation(), getcurrent()
        done: list[Any] = []

        def reply(answer: Any) -> None:
            if not done:
                done.append(answer)
                timer.cancel()
                me.switch(answer)

        timer = self._kernel.at(patience, lambda: reply(None), self)
        self._kernel.spawn(process, lambda: self._serve(process, operation, reply))
        return isinstance(self._kernel.park(), Outcome)

    def _serve(self, process: Process, operation: Operation, reply: Callable[[Any], None]) -> None:
        """At the node, as a task of the process."""
        self._watcher.received(process, operation)
        try:
            answer: Any = process.submit(operation)
        except PROBLEMS as error:
            answer = error
            self._watcher.count(type(error).__name__)
        else:
            self._watcher.answered(process, operation, answer)
        self._kernel.at(self._random.uniform(0.001, 0.01), lambda: reply(answer), self)

    def _operation(self) -> Operation:
        item, call = self._item, self._item.call
        assert call is not None
        self._tries += 1
        nonce = f"{item.number}-{self._tries}"
        if call.act not in IDEMPOTENT_ACTS:
            return Operation(call=call, key_hash=item.key, event_id=f"event-{nonce}", nonce=nonce)
        event_id = retry_id(call.act, item.key, str(item.number))
        body = msgspec.json.encode(call).decode()
        return Operation(call=call, key_hash=item.key, event_id=event_id, nonce=nonce, body_hash=body)
